"""The models that several experiments share, each described by one recipe."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a small language model comes about; nothing else may influence its weights.

    `config` are the arguments of the family's configuration in `oarlock.llm.models`, without
    `vocab_size`, which the tokeniser gives. The learning rate rises linearly over `warmup` steps
    and falls along a cosine to `final_lr` times its peak. `batch` sequences of `context` tokens
    make a step. The last `held_out` of the text is for validation only.
    """

    name: str
    summary: str
    family: str
    config: Mapping[str, int | float | bool | str]
    data: str
    part: str | None = None
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    vocab_size: int = 256  #: of the BPE tokeniser; 256 for bytes
    steps: int
    batch: int
    context: int
    optimizer: str = "adamw"
    options: Mapping[str, Any] = field(default_factory=dict)  #: other arguments of the optimiser
    learning_rate: float
    weight_decay: float = 0.1
    warmup: int = 100
    final_lr: float = 0.1
    clip_norm: float = 1.0
    held_out: float = 0.1
    validate_every: int = 100
    seed: int = 0

    def __post_init__(self):
        if self.tokenizer == "bytes" and self.vocab_size != 256:
            raise ValueError(f"vocab_size must be 256 for bytes, got {self.vocab_size}")
        if self.tokenizer == "bpe" and self.vocab_size <= 256:
            raise ValueError(f"vocab_size must exceed 256 for bpe, got {self.vocab_size}")
        for name in ("steps", "batch", "context", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.warmup < self.steps:
            raise ValueError(f"warmup must lie between 0 and steps - 1, got {self.warmup}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie between 0 and 1, got {self.held_out}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"config": dict(self.config), "options": dict(self.options)}


RECIPES = (
    Recipe(
        name="llama-shakespeare-bytes",
        summary="1.0 M parameters, LLaMA with grouped queries, bytes of Shakespeare",
        family="llama",
        config={
            "hidden_size": 128,
            "num_layers": 5,
            "num_heads": 4,
            "num_kv_heads": 2,
            "intermediate_size": 384,
            "max_length": 256,
        },
        data="llm/tinyshakespeare",
        steps=1000,
        batch=16,
        context=128,
        learning_rate=2e-3,
    ),
    Recipe(
        name="gpt-shakespeare-bytes",
        summary="1.1 M parameters, GPT, bytes of Shakespeare",
        family="gpt",
        config={
            "hidden_size": 128,
            "num_layers": 5,
            "num_heads": 4,
            "max_length": 256,
        },
        data="llm/tinyshakespeare",
        steps=1000,
        batch=16,
        context=128,
        learning_rate=2e-3,
    ),
    Recipe(
        name="llama-poems-bpe",
        summary="3.2 M parameters, LLaMA with grouped queries, Chinese poems in BPE tokens",
        family="llama",
        config={
            "hidden_size": 192,
            "num_layers": 4,
            "num_heads": 6,
            "num_kv_heads": 3,
            "max_length": 256,
        },
        data="llm/chinese_poetry",
        tokenizer="bpe",
        vocab_size=4096,
        steps=1000,
        batch=16,
        context=128,
        learning_rate=2e-3,
    ),
)


def find(name: str, recipes: Iterable[Recipe] = RECIPES) -> Recipe:
    """The recipe of a name; ValueError proposes near names."""
    known = {recipe.name: recipe for recipe in recipes}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
    raise ValueError(f"no prepared model {name!r}; did you mean {', '.join(near)}?")
