"""The `regraft` command. Each verb is a file of its own and imports what it needs when it is called."""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from regraft import __version__
from regraft.cli import convert, demo, evaluate, find_lr, inspect, match, predict, recipe, report, resume, train
from regraft.errors import RegraftError
from regraft.run.processes import is_main_process

__all__ = ["app", "run"]


class _Verbs(TyperGroup):
    """Ends a verb's errors before the command-line library takes them for its own."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RegraftError as error:
            return _end(f"error: {error}", error.exit_code, error)
        except KeyboardInterrupt as error:
            return _end("stopped at once; what was saved before is still whole.", 130, error)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


app = typer.Typer(
    name="regraft",
    cls=_Verbs,
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
    silent = quiet or not is_main_process()
    logging.getLogger("regraft").setLevel(logging.WARNING if silent else logging.INFO)


app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("inspect")(inspect.inspect)
app.command("match")(match.match)
app.command("convert")(convert.convert)
app.command("report")(report.report)
app.command("recipe")(recipe.recipe)
app.command("find-lr")(find_lr.find_lr)
app.command("demo")(demo.demo)


def run() -> None:
    """Run the command line; errors of regraft become three sentences on stderr and their exit code."""
    # Importing torch and timm makes 800,000 objects, and the collector's usual pace among them takes 1 s of 8.
    gc.set_threshold(20_000, *gc.get_threshold()[1:])
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt as error:
        _end("stopped at once; what was saved before is still whole.", 130, error)
    except Exception as error:
        _end(
            f"error: something inside regraft went wrong ({type(error).__name__}: {error}). "
            "This is a bug, not your mistake. Run the command again as `regraft --debug ...` for the traceback.",
            1,
            error,
        )


def _end(text: str, exit_code: int, error: BaseException) -> NoReturn:
    """Say what happened, with the traceback on request, and end with the exit code."""
    if _settings["debug"]:
        import traceback

        traceback.print_exception(error)
    _say(text)
    sys.exit(exit_code)


def _say(text: str) -> None:
    color = sys.stderr.isatty()
    text = text if is_main_process() else f"process {os.environ['RANK']}: {text}"
    shown = text.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode(sys.stderr.encoding or "utf-8")
    label, _, rest = shown.partition(":")
    print(f"\033[31m{label}:\033[0m{rest}" if color and rest else shown, file=sys.stderr)


if __name__ == "__main__":
    run()
