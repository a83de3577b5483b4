"""`oarlock-llm` and its commands."""

import os
from typing import Annotated

import typer

from oarlock.llm import installed
from oarlock.llm.cli import (
    bench,
    chat,
    convert,
    eval,
    generate,
    info,
    load,
    quantize,
    rank,
    serve,
)

BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE has ended
INTERRUPTED = 130  # and of one that SIGINT has ended

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"oarlock-llm {installed.version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Language models on PaddlePaddle."""


app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.command("generate")(generate.generate)
app.command("info")(info.info)
app.command("rank")(rank.rank)
app.command("bench")(bench.bench)
app.command("convert")(convert.convert)
app.command("quantize")(quantize.quantize)
app.command("load")(load.load)
app.add_typer(eval.app, name="eval")


def _interrupted(error: BaseException) -> bool:
    """Whether an error comes of Ctrl-C, directly or not."""
    met: BaseException | None = error
    while met is not None and not isinstance(met, KeyboardInterrupt):
        met = met.__cause__ or met.__context__
    return met is not None


def main() -> None:
    """The entry point; leaves quietly if whoever reads the output goes away, as `head` does, and at Ctrl-C."""
    try:
        app()
    except ImportError as error:  # which some libraries make of Ctrl-C while they are imported
        if not _interrupted(error):
            raise
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as leaving:  # which Rich and Typer make of a broken pipe, with code 1
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still flushes at its end
        raise SystemExit(BROKEN_PIPE) from None


if __name__ == "__main__":
    main()
