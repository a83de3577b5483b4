"""`oarlock-llm quantize`: a model's weights in 8 or 4 bits, in a file."""

from pathlib import Path
from typing import Annotated

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.convert import Force, Pre
from oarlock.llm.cli.problems import told
from oarlock.llm.cli.writing import bar, report


def quantize(
    source: engine.Model,
    target: Annotated[Path, typer.Argument(help="A .gguf file; it appears when it is complete.")],
    weights: Annotated[
        str,
        typer.Option(
            help="int8 (Q8_0) or int4 (Q4_0, embedding and head Q8_0), a float16 scale for 32 inputs."
        ),
    ],
    max_length: engine.MaxLength = None,
    pre: Pre = None,
    threads: engine.Threads = None,
    force: Force = False,
) -> None:
    """Write a GGUF file whose codes `serve` and the others take as they are with the same --weights.

    A tensor at a time is in memory.

    \b
    oarlock-llm quantize Qwen2.5-0.5B qwen-q4.gguf --weights int4
    oarlock-llm chat qwen-q4.gguf --weights int4
    """
    with told(locals()):
        from oarlock.llm import writing

        with bar() as progress:
            written = writing.quantize(
                source,
                target,
                weights=weights,
                max_length=max_length,
                pre=pre,
                threads=threads,
                force=force,
                progress=progress,
            )
        report(written)
