"""From a path or a model to an engine."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from oarlock.native.decoder import Model

from oarlock.llm import loading, models
from oarlock.llm.engine import packing
from oarlock.llm.engine.engine import Engine, EngineConfig
from oarlock.llm.engine.noted import Noted
from oarlock.llm.engine.params import Constraint, SamplingParams
from oarlock.llm.engine.sharding import Shard
from oarlock.llm.engine.texts import Matcher
from oarlock.llm.loading import Adapter, Checkpoint, Text
from oarlock.llm.models import LanguageModel
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.ranks import RanksConfig
from oarlock.llm.ranks.leader import Team
from oarlock.llm.tokenizers import Tokenizer

Given = str | os.PathLike | LanguageModel
NO_ADAPTERS: Mapping[str, "GivenAdapter"] = MappingProxyType({})
GivenAdapter = str | os.PathLike | Adapter


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An engine and what is known of its model.

    Args:
        engine: ready.
        family: of ``oarlock.llm.models``.
        config: of the model.
        text: tokenizer, ends, chat template.
        generation: the author's defaults by the names of sampling parameters; none where they are off.
        weights: format of the layers' weights.
        parameters: how many numbers its matrices hold.
        checkpoint: what was read; None for a model that was given.
        rounded_anew: how many matrices of the files were codes that ``weights`` does not hold exactly, by their
            format there; of int8 and int4 only.
    """

    engine: Engine
    family: str
    config: ModelConfig
    text: Text
    generation: dict[str, Any]
    weights: str
    parameters: int
    checkpoint: Checkpoint | None
    rounded_anew: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def read_adapter(self, adapter: GivenAdapter) -> Adapter:
        """An adapter for this model.

        Args:
            adapter: a folder of PEFT, or one that was read.

        Raises:
            ValueError: the folder does not fit the model, or the model is no Hugging Face folder.
        """
        if isinstance(adapter, Adapter):
            return adapter
        if self.checkpoint is None:
            raise ValueError(
                f"adapter must be an Adapter where the model was not read from files, got {adapter!r}."
            )
        return loading.load_adapter(adapter, self.checkpoint)

    @property
    def defaults(self) -> SamplingParams:
        """How tokens are drawn where a request does not say otherwise."""
        return SamplingParams(**self.generation)


def open_engine(
    model: Given,
    *,
    tokenizer: Tokenizer | None = None,
    weights: str = "fp32",
    max_length: int | None = None,
    generation_config: str = "auto",
    config: EngineConfig = EngineConfig(),
    adapters: Mapping[str, GivenAdapter] = NO_ADAPTERS,
    draft: Given | None = None,
    draft_weights: str | None = None,
    ranks: int | RanksConfig = 1,
) -> Opened:
    """Read a model, pack its weights and make its cache.

    Args:
        model: a path that ``oarlock.llm.loading.load`` reads, or a model.
        tokenizer: of a model, or in place of the files' own.
        weights: "fp32", "bf16", "int8" or "int4". Codes of files that it holds exactly stay, others are rounded
            anew.
        max_length: positions at most, where the model's own are more than are needed or without a limit.
        generation_config: "auto" for the author's defaults of sampling, "off" for none.
        config: sizes of the engine.
        adapters: LoRA adapters by name, each a folder of PEFT or a ``loading.Adapter``.
        draft: a small model with the same vocabulary, whose guesses (``config.guesses`` a step) make texts faster
            and leave them as they are; or None.
        draft_weights: format of the draft's weights; None for the model's.
        ranks: processes that compute the model together, or also where they come from.

    Raises:
        ValueError: the path, model, draft or an adapter cannot be read or run, or the model not be cut for so many
            ranks.
        ConnectionError: a rank was lost.
    """
    several = RanksConfig(count=ranks) if isinstance(ranks, int) else ranks
    if generation_config not in ("auto", "off"):
        raise ValueError(f"generation_config must be auto or off, got {generation_config!r}.")
    found = _Found.of(model, max_length)
    generation: dict[str, Any] = {}
    if generation_config == "auto":
        generation = _checked(found.generation, model)
    noted: Noted | None = None
    if found.checkpoint is not None:
        noted = Noted(found.checkpoint.parameters, weights)
        found = dataclasses.replace(found, parameters=noted)
    text = found.text
    if tokenizer is not None:
        text = dataclasses.replace(text, tokenizer=tokenizer)
    guesser = None
    if draft is not None:
        small = _Found.of(draft, None)
        _check_same_tokens(text.tokenizer, small.text.tokenizer)
        guesser, _, _ = small.packed(
            RanksConfig(count=1), weights=draft_weights or weights, max_length=max_length
        )
    elif draft_weights is not None:
        raise ValueError(f"draft_weights must be None without a draft, got {draft_weights!r}.")
    packed, team, shards = found.packed(several, weights=weights, max_length=max_length)
    constrain: Callable[[Constraint], Matcher] | None = None
    if text.tokenizer is not None:
        from oarlock.llm.engine.constraints import Constraints

        constrain = Constraints(text.tokenizer, packed.vocab, text.eos)
    try:
        engine = Engine(
            packed,
            config,
            tokenizer=text.tokenizer,
            ends=text.eos,
            constrain=constrain,
            draft=guesser,
            team=team,
            shards=shards,
        )
    except BaseException:
        if team is not None:
            team.close()
        raise
    opened = Opened(
        engine=engine,
        family=found.family,
        config=found.config,
        text=text,
        generation=generation,
        weights=weights,
        parameters=packing.count(found.family, found.config),
        checkpoint=found.checkpoint,
        rounded_anew={} if noted is None else noted.rounded_anew,
    )
    try:
        for name, adapter in adapters.items():
            engine.load_adapter(name, opened.read_adapter(adapter))
    except BaseException:
        engine.close()
        raise
    return opened


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A model that was given or read, not packed yet."""

    family: str
    config: ModelConfig
    parameters: Mapping[str, Any]
    text: Text = Text()
    generation: dict[str, float] = dataclasses.field(default_factory=dict)
    checkpoint: Checkpoint | None = None

    @classmethod
    def of(cls, model: Given, max_length: int | None) -> "_Found":
        if isinstance(model, LanguageModel):
            if max_length is not None:
                raise ValueError("max_length is for models that are read; this one has its own.")
            parameters = {name: one.numpy() for name, one in model.state_dict().items()}
            return cls(family=models.name_of(model), config=model.config, parameters=parameters)
        read = loading.load(model, max_length=max_length)
        return cls(
            family=read.family,
            config=read.config,
            parameters=read.parameters,
            text=read.text,
            generation=dict(read.generation),
            checkpoint=read,
        )

    def packed(
        self, ranks: RanksConfig, **options: Any
    ) -> tuple[Model, Team | None, tuple[Shard, ...]]:
        """The first rank's part, once the others have theirs, and what each has; or the whole model."""
        given = self.family, self.config, self.parameters
        if ranks.count == 1:
            return packing.pack(*given, **options), None, ()
        parts = packing.parts(*given, ranks=ranks.count, **options)
        team, shards = Team(ranks), []
        try:
            for shard, part in parts:
                shards.append(shard)
                if shard.rank > 0:
                    team.deliver(shard.rank, part)
                    del part  # before the next is made
        except BaseException:
            team.close()
            raise
        return part, team, tuple(reversed(shards))  # that of the first comes last


#: Special in some formats of a tokenizer and not in others: llama2.c's has it, SentencePiece's only controls.
_UNKNOWN = "<unk>"


def _check_same_tokens(ours: Tokenizer | None, drafts: Tokenizer | None) -> None:
    """Refuse a draft whose tokens mean other texts. Without a tokenizer only their number is known."""
    if ours is None or drafts is None:
        return
    other = [name for name, _ in ours.special_tokens.items() ^ drafts.special_tokens.items()]
    if ours.vocab_size != drafts.vocab_size or other not in ([], [_UNKNOWN]):
        raise ValueError(
            "draft must have the model's tokens, but its tokenizer has others: "
            f"{drafts.vocab_size} and {len(drafts.special_tokens)} special ones in place of "
            f"{ours.vocab_size} and {len(ours.special_tokens)}."
        )
    special = {*ours.special_tokens.values(), *drafts.special_tokens.values()}
    for token in range(ours.vocab_size):
        if token not in special and ours.token_bytes(token) != drafts.token_bytes(token):
            raise ValueError(
                f"draft must have the model's tokens, but its token {token} is "
                f"{drafts.token_bytes(token)!r} in place of {ours.token_bytes(token)!r}."
            )


def _checked(generation: Mapping[str, float], source: object) -> dict[str, Any]:
    """Defaults that the engine can use."""
    found: dict[str, Any] = dict(generation)
    try:
        SamplingParams(**found)
    except ValueError as error:
        raise ValueError(
            f"{source}: its defaults of sampling do not fit: {error} Mend the file, or say "
            "generation_config='off'."
        ) from error
    return found
