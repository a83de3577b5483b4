"""Options that all commands with a model share."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from oarlock.llm.engine import EngineConfig, SamplingParams
    from oarlock.llm.ranks import RanksConfig

Model = Annotated[
    Path,
    typer.Argument(
        help="A Hugging Face folder, a .gguf file, a llama2.c .bin (its tokenizer beside it), or a "
        "folder of `models.save`."
    ),
]
Tokenizer = Annotated[
    Optional[str],
    typer.Option(
        help="In place of the files' own: a tokenizer.json, a SentencePiece .model, a llama2.c .bin, an RWKV .txt, "
        "or `bytes`."
    ),
]
ChatTemplate = Annotated[
    Optional[Path], typer.Option(help="A Jinja file in place of the model's own template.")
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
    Optional[int],
    typer.Option(
        help="Tokens that a step guesses, by the draft or from repetitions; texts stay the same. Without it 4 "
        "with a draft, else none."
    ),
]
Draft = Annotated[
    Optional[Path],
    typer.Option(
        help="A small model with the same vocabulary, which guesses --guesses tokens a step."
    ),
]
DraftWeights = Annotated[
    Optional[str], typer.Option(help="Format of the draft's weights; the model's without it.")
]
Adapters = Annotated[
    Optional[list[str]],
    typer.Option(
        "--adapter",
        metavar="NAME=FOLDER",
        help="A LoRA folder of PEFT; requests ask for it by its name as their model. May be repeated.",
    ),
]
Drawing = Annotated[
    str,
    typer.Option(
        help="auto: where nothing else is said, draw as generation_config.json or the GGUF file advises; off: "
        "do not."
    ),
]
ALL_TOKENS = (0, -1)  # how others say that top_k leaves nothing out
_AUTHOR = "the author's, or"
MaxTokens = Annotated[Optional[int], typer.Option(help=f"Most tokens to add; {_AUTHOR} 256.")]
Temperature = Annotated[
    Optional[float], typer.Option(help=f"0 for the most probable tokens; {_AUTHOR} 0.8.")
]
TopK = Annotated[
    Optional[int], typer.Option(help="Among so many tokens, 0 for all; the author's, or all.")
]
TopP = Annotated[
    Optional[float],
    typer.Option(help=f"Among tokens of this probability together; {_AUTHOR} 1."),
]
MinP = Annotated[
    Optional[float],
    typer.Option(help=f"Among tokens of this share of the largest probability; {_AUTHOR} 0."),
]
RepetitionPenalty = Annotated[
    Optional[float], typer.Option(help=f"On tokens that are there already; {_AUTHOR} 1.")
]
Adapter = Annotated[Optional[Path], typer.Option(help="A LoRA folder of PEFT, for this model.")]
Seed = Annotated[Optional[int], typer.Option(help="Of the draws.")]
Threads = Annotated[Optional[int], typer.Option(help="All physical cores without it.")]
RANK_TOKEN = "OARLOCK_RANK_TOKEN"
Ranks = Annotated[
    int,
    typer.Option(
        help="Processes that compute the model together, each with a part of its weights and cache."
    ),
]
RankListen = Annotated[
    Optional[str],
    typer.Option(
        help="HOST:PORT where the other ranks join (`oarlock-llm rank`); without it they are "
        "started here."
    ),
]
RankTokenFile = Annotated[
    Optional[Path],
    typer.Option(
        help=f"A file with the token that ranks must know, or the environment variable {RANK_TOKEN}."
    ),
]


def config(**given: Any) -> "EngineConfig":
    """The engine's sizes, of the options that were given."""
    from oarlock.llm.engine import EngineConfig

    return EngineConfig(**{name: value for name, value in given.items() if value is not None})


def adapters(given: list[str] | None) -> dict[str, Path]:
    """Folders by name.

    Raises:
        ValueError: one is not NAME=FOLDER, or two have a name.
    """
    found: dict[str, Path] = {}
    for one in given or ():
        name, equals, folder = one.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"--adapter must be NAME=FOLDER, got {one!r}.")
        if name in found:
            raise ValueError(f"--adapter must have a name of its own each, got {name!r} twice.")
        found[name] = Path(folder)
        if not found[name].is_dir():
            raise ValueError(f"--adapter must be NAME=FOLDER, but {folder} is no folder.")
    return found


def alone(adapter: Path | None) -> dict[str, Path]:
    """The adapter of a command that has one, by the name of its folder.

    Raises:
        ValueError: it is no folder.
    """
    if adapter is None:
        return {}
    if not adapter.is_dir():
        raise ValueError(f"--adapter must be a folder of PEFT, but {adapter} is no folder.")
    return {str(adapter): adapter}


def ranks(count: int, listen: str | None, token_file: Path | None) -> "RanksConfig":
    """Where the ranks come from, of the options that were given.

    Raises:
        ValueError: they do not fit together.
    """
    from oarlock.llm.ranks import RanksConfig

    if listen is not None and count == 1:
        raise ValueError(
            "--ranks must be 2 or more with --rank-listen: one has nobody to wait for."
        )
    if listen is None and token_file is not None:
        raise ValueError("--rank-token-file must not be given without --rank-listen.")
    token = None if listen is None else rank_token(token_file)
    return RanksConfig(count=count, listen=listen, token=token)


def rank_token(path: Path | None) -> str | None:
    """The token of a file, or of the environment, whose variable is then taken away from children."""
    given = os.environ.pop(RANK_TOKEN, None)
    return given if path is None else path.read_text().strip()


def tell(weights: str, rounded_anew: Mapping[str, int]) -> None:
    """Say on stderr which codes of files did not stay."""
    for format, count in rounded_anew.items():
        typer.echo(
            f"rounded anew to {weights}, which does not hold their codes: {count} matrices of {format}",
            err=True,
        )


def drawing(generation: Mapping[str, Any] = {}, **typed: Any) -> "SamplingParams":
    """How tokens are drawn: as was typed, else as the author advises, else 256 tokens at temperature 0.8.

    Raises:
        ValueError: a value that was typed does not fit.
    """
    from oarlock.llm.engine import SamplingParams

    given = {name: value for name, value in typed.items() if value is not None}
    if given.get("top_k") in ALL_TOKENS:
        given["top_k"] = None
    return SamplingParams(**{"max_tokens": 256, "temperature": 0.8} | dict(generation) | given)


def shortened(params: "SamplingParams", prompt: int, most: int) -> "SamplingParams":
    """As many tokens as a default says, or as there is room for.

    Args:
        params: with the default.
        prompt: tokens of the prompt.
        most: tokens of prompt and text together.

    Raises:
        ValueError: the prompt leaves no room.
    """
    room = most - prompt
    if room < 1:
        raise ValueError(
            f"the prompt has {prompt} tokens, and the model holds {most} of prompt and text together: give a "
            "shorter one, or a larger --max-length where the model has more."
        )
    wanted = params.max_tokens
    return dataclasses.replace(params, max_tokens=room if wanted is None else min(room, wanted))
