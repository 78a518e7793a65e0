"""The `regraft` command. Each verb is a file of its own and imports what it needs when it is called."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, NoReturn

import typer
import typer.main
from typer.core import TyperGroup

from regraft.cli.front.groups import shown
from regraft.cli.front.language import apart, asked_language, error_text, translated_help
from regraft.cli.front.stopped import Stopped, stops_raised
from regraft.cli.usage import in_words
from regraft.cli.verbs import (
    convert,
    demo,
    evaluate,
    find_lr,
    inspect,
    match,
    predict,
    recipe,
    report,
    resume,
    runs,
    train,
)
from regraft.cli.verbs.backbones import models, rank
from regraft.cli.verbs.finished import add_class, compare, explain, export, serve
from regraft.cli.verbs.images import check
from regraft.cli.verbs.installation import cache, info
from regraft.cli.verbs.sharing import pull, push, sign, verify
from regraft.compute.late_compiler import defer_compiler
from regraft.errors import RegraftError, StorageError
from regraft.language.choice import choose_language, chosen_language
from regraft.machine.processes import is_main_process
from regraft.run.invocation import as_typed, begin
from regraft.run.terminal import drop_stdout, forgiving, open_missing_streams
from regraft.version import __version__
from regraft.visible import visible

__all__ = ["app", "run"]


# What these print tells of files; nobody need read it.
_MAKE_FILES = {"train", "resume", "demo", "convert", "export", "report"}
_EVERYWHERE = ("--debug", "--quiet", "-q")  # of the command itself; they may stand after the verb too


class _Verbs(TyperGroup):
    """Ends a verb's errors before the command-line library takes them for its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own, rest = apart(args, _EVERYWHERE)
        return super().parse_args(ctx, [*own, *rest])

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except typer.BadParameter as error:
            error.message = in_words(error.message)
            raise
        except RegraftError as error:
            return _end(error_text(error), error.exit_code, error)
        except Stopped as error:
            return _end(f"{error}; finished files and checkpoints are intact.", error.exit_code, error)
        except KeyboardInterrupt as error:
            return _end("Interrupted; finished files and checkpoints are intact.", 130, error)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            drop_stdout()
            sys.exit(0)
        except OSError as error:
            return _end(f"error: {_system_error(error)}", StorageError.exit_code, error)


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
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings only, no progress.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    lang: Annotated[
        Literal["en", "zh"] | None,
        typer.Option(
            "--lang",
            help="Language of the help, of errors and of reports: en or zh; default: LANG.",
            show_default=False,
        ),
    ] = None,
) -> None:
    _settings["debug"] = debug
    if ctx.invoked_subcommand in _MAKE_FILES:
        sys.stdout = forgiving(sys.stdout)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    silent = quiet or not is_main_process()
    logging.getLogger("regraft").setLevel(logging.WARNING if silent else logging.INFO)


_VERBS: dict[str, Callable[..., Any]] = {  # in the order of `regraft --help`, whose groups are in front/groups.py
    "demo": demo.demo,
    "train": train.train,
    "resume": resume.resume,
    "add-class": add_class.add_class,
    "recipe": recipe.recipe,
    "find-lr": find_lr.find_lr,
    "check": check.check,
    "inspect": inspect.inspect,
    "runs": runs.runs,
    "report": report.report,
    "evaluate": evaluate.evaluate,
    "explain": explain.explain,
    "compare": compare.compare,
    "rank": rank.rank,
    "info": info.info,
    "cache": cache.cache,
    "predict": predict.predict,
    "export": export.export,
    "serve": serve.serve,
    "push": push.push,
    "pull": pull.pull,
    "sign": sign.sign,
    "verify": verify.verify,
    "match": match.match,
    "convert": convert.convert,
    "models": models.models,
}
for _name, _verb in _VERBS.items():
    app.command(_name, **shown(_name))(_verb)


class _Lines(logging.Formatter):
    """Plain lines, with commands as the user types them."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(as_typed(super().format(record)), keep="\n")


def run() -> None:
    """Run the command line; errors of regraft become a few lines on stderr and their exit code."""
    # Importing torch and timm makes 800,000 objects, and the collector's usual pace among them takes 1 s of 8.
    gc.set_threshold(20_000, *gc.get_threshold()[1:])
    defer_compiler()
    begin()
    open_missing_streams()
    sys.stderr = forgiving(sys.stderr)
    try:
        choose_language(asked_language(sys.argv[1:]))
        with stops_raised():
            _run_app()
    except KeyboardInterrupt as error:
        _end("Interrupted; finished files and checkpoints are intact.", 130, error)
    except Exception as error:
        _end(
            f"error: something inside regraft went wrong ({type(error).__name__}: {error}). "
            "This is a bug, not your mistake. Run the command again as `regraft --debug ...` for the traceback.",
            1,
            error,
        )


def _run_app() -> None:
    if chosen_language() == "en":
        app(standalone_mode=True)
        return
    with translated_help(typer.main.get_command(app)) as command:
        command(standalone_mode=True)


def _end(text: str, exit_code: int, error: BaseException) -> NoReturn:
    """Say what happened, with the traceback on request, and end with the exit code."""
    if _settings["debug"]:
        import traceback

        traceback.print_exception(error)
    _say(text)
    sys.exit(exit_code)


def _system_error(error: OSError) -> str:
    """Return the text of an error of the operating system: of a file, or, where it names none, of the output."""
    if error.filename is None:
        drop_stdout()
        return f"The output could not be written: {error.strerror or error}."
    return f"{os.fspath(error.filename)!r} could not be read or written: {error.strerror or error}."


def _say(text: str) -> None:
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org
    text = visible(as_typed(text), keep="\n")
    text = text if is_main_process() else f"process {os.environ['RANK']}: {text}"
    shown = text.encode(sys.stderr.encoding or "utf-8", "backslashreplace").decode(sys.stderr.encoding or "utf-8")
    label, _, rest = shown.partition(":")
    print(f"\033[31m{label}:\033[0m{rest}" if color and rest else shown, file=sys.stderr)


if __name__ == "__main__":
    run()
