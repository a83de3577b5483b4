"""Options that all commands with a model share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from oarlock.llm.engine import EngineConfig

Model = Annotated[
    Path,
    typer.Argument(
        help="A Hugging Face folder, a .gguf file, a llama2.c .bin (its tokenizer beside it), or a "
        "folder of `models.save`."
    ),
]
Weights = Annotated[
    str, typer.Option(help="Format of the weights in memory: fp32, bf16, int8 or int4.")
]
MaxLength = Annotated[
    Optional[int],
    typer.Option(help="Most tokens of prompt and text together; the model's own without it."),
]
CacheTokens = Annotated[
    Optional[int], typer.Option(help="Positions that the cache holds, for all texts together.")
]
CacheFormat = Annotated[str, typer.Option(help="Keys and values in memory: fp32, bf16 or int8.")]
Guesses = Annotated[
    int,
    typer.Option(help="Tokens that a step guesses from repetitions; texts stay the same."),
]
Threads = Annotated[Optional[int], typer.Option(help="All physical cores without it.")]


def config(**given: Any) -> "EngineConfig":
    """The engine's sizes, of the options that were given."""
    from oarlock.llm.engine import EngineConfig

    return EngineConfig(**{name: value for name, value in given.items() if value is not None})
