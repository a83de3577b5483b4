"""Everything that running a model needs, from one path."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from oarlock.llm.loading.hugging_face_config import Description
from oarlock.llm.loading.stored import Parameters, Stored
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.tokenizers import Tokenizer

LONGEST = 1 << 24  # positions; more is a corrupt file, and tables would not fit the memory


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """How a model's text becomes tokens.

    Args:
        tokenizer: None where the files have none.
        bos: token that begins a text, if any.
        eos: tokens that end one; several for chat models.
        adds_bos: whether prompts are to begin with ``bos``.
        chat_template: Jinja source for ``oarlock.llm.tokenizers.chat.render``.
        template_tokens: spellings that a template may name: "bos_token", "eos_token"...
    """

    tokenizer: Tokenizer | None = None
    bos: int | None = None
    eos: tuple[int, ...] = ()
    adds_bos: bool = False
    chat_template: str | None = None
    template_tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def begin(self) -> tuple[int, ...]:
        """Tokens that a text to continue begins with: ``bos``, where the model wants it."""
        return (self.bos,) if self.adds_bos and self.bos is not None else ()

    def encode(self, prompt: str, *, special: bool = False) -> list[int]:
        """Ids of a prompt, ``bos`` before them where the model wants it.

        Args:
            prompt: any text.
            special: it is a rendered chat template: spellings of special tokens are these tokens,
                and ``bos`` is not added to one that has it.

        Raises:
            ValueError: there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("tokenizer is absent: the model's files have none.")
        ids = self.tokenizer.encode(prompt, special=special)
        if special and ids[:1] == [self.bos]:
            return ids
        return [*self.begin, *ids]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model on disk: what it is, its parameters (read when asked for), its text.

    Args:
        source: file or folder.
        format: "hugging face", "gguf", "llama2.c", "rwkv.cpp" or "oarlock".
        family: of ``oarlock.llm.models``.
        config: of the model.
        parameters: by the names of ``oarlock.llm.models``, in the files' own formats.
        text: tokenizer, ends, chat template.
        generation: the author's defaults by the names of sampling parameters: temperature, top_k,
            top_p, min_p, repetition_penalty, max_tokens.
    """

    source: Path
    format: str
    family: str
    config: ModelConfig
    parameters: Parameters
    text: Text = Text()
    generation: Mapping[str, float] = dataclasses.field(default_factory=dict)


def parameters_of(
    description: Description, stored: Mapping[str, Stored], source: Path, *, float32: bool
) -> Parameters:
    """The parameters of a described model among stored tensors, all checked, none read."""
    check_sizes(description.config, stored, source)
    stored, prefix = dict(stored), description.prefix
    if prefix and not any(name.startswith(prefix) for name in stored):
        stored = {prefix + name: tensor for name, tensor in stored.items()}
    return Parameters(
        stored,
        description.parts(),
        source=str(source),
        ignored=ends_with(description.ignored),
        float32=float32,
    )


def ends_with(ends: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a name ends so."""
    return lambda name: name.endswith(ends) if ends else False


def check_sizes(config: ModelConfig, stored: Mapping[str, Stored], source: Path) -> None:
    """Refuse sizes that no tensor has, before anything of such sizes is made."""
    largest = max((math.prod(tensor.shape) for tensor in stored.values()), default=0)
    limits = {
        "num_layers": len(stored),
        "num_experts": max(len(stored), largest),
        "max_length": LONGEST,
    }
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_heads",
        "num_kv_heads",
        "head_size",
    )
    limits |= dict.fromkeys(names, largest)
    for name, limit in limits.items():
        value = getattr(config, name, 0)
        if value > limit:
            raise ValueError(
                f"{source}: {name} must be at most {limit}, given its {len(stored)} tensors of at "
                f"most {largest} values, got {value}."
            )
    heads = getattr(config, "num_heads", 0) * getattr(config, "head_size", 0)
    if max(heads, 3 * getattr(config, "hidden_size", 0)) > max(3, largest):
        raise ValueError(f"{source}: num_heads times head_size must fit its tensors, got {heads}.")
