"""The `regraft` command. Each verb is a file of its own and imports what it needs when it is called."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from regraft import __version__
from regraft.cli import demo, evaluate, inspect, predict, recipe, report, resume, train
from regraft.errors import RegraftError

__all__ = ["app", "run"]

app = typer.Typer(
    name="regraft",
    help="Graft new heads and foreign weights onto pretrained vision models, fine-tune them in stages, "
    "and know what took.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_settings = {"debug": False}


def _version(value: bool) -> None:
    if value:
        typer.echo(f"regraft {__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, warnings only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    _settings["debug"] = debug
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("regraft").setLevel(logging.WARNING if quiet else logging.INFO)


app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("inspect")(inspect.inspect)
app.command("report")(report.report)
app.command("recipe")(recipe.recipe)
app.command("demo")(demo.demo)


def run() -> None:
    """Run the command line; errors of regraft become three sentences on stderr and their exit code."""
    try:
        app(standalone_mode=True)
    except RegraftError as error:
        if _settings["debug"]:
            raise
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("stopped at once; what was saved before is still whole.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if _settings["debug"]:
            raise
        _say(
            f"error: something inside regraft went wrong ({type(error).__name__}: {error}). "
            "This is a bug, not your mistake. Run the command again as `regraft --debug ...` for the traceback."
        )
        sys.exit(1)


def _say(text: str) -> None:
    color = sys.stderr.isatty()
    label, _, rest = text.partition(":")
    print(f"\033[31m{label}:\033[0m{rest}" if color and rest else text, file=sys.stderr)


if __name__ == "__main__":
    run()
