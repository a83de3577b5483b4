"""`oarlock-llm convert`: a model in another format."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told
from oarlock.llm.cli.writing import bar, report

Target = Annotated[
    Path, typer.Argument(help="A .gguf file, or a folder; it appears when it is complete.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a target that is there.")]
Pre = Annotated[
    Optional[str],
    typer.Option(
        help="GGUF: name of the expression that cuts texts into words, where it is not found: gpt-2, "
        "llama-bpe, qwen2, bloom..."
    ),
]


def convert(
    source: engine.Model,
    target: Target,
    format: Annotated[
        Optional[str],
        typer.Option(
            help="hugging-face (config.json, model.safetensors, tokenizer), gguf, or oarlock (a folder of "
            "`models.save`, float32); as TARGET's name says without it."
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="keep: every number as it is, codes too where the target is GGUF; or fp32, fp16, bf16."
        ),
    ] = "keep",
    max_length: engine.MaxLength = None,
    pre: Pre = None,
    shard_gb: Annotated[float, typer.Option(help="Most of a safetensors file, GB.")] = 5.0,
    force: Force = False,
) -> None:
    """Write a model in another format; what the format cannot express is refused.

    \b
    oarlock-llm convert llama.gguf llama-folder --dtype bf16
    oarlock-llm convert Qwen2.5-0.5B qwen.gguf --dtype fp16
    oarlock-llm convert stories15M.bin stories.gguf
    oarlock-llm convert rwkv.bin rwkv-folder --format oarlock

    A folder gets config.json, model.safetensors (or several files and their index), generation_config.json and the
    tokenizer's files.
    """
    with told(locals()):
        from oarlock.llm import writing

        with bar() as progress:
            written = writing.convert(
                source,
                target,
                format=None if format is None else format.replace("-", " "),
                dtype=dtype,
                max_length=max_length,
                pre=pre,
                shard_bytes=int(shard_gb * 1e9),
                force=force,
                progress=progress,
            )
        report(written)
