"""From a path or a model to an engine."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from oarlock.native.decoder import Model

from oarlock.llm import loading, models
from oarlock.llm.engine import packing
from oarlock.llm.engine.engine import Engine, EngineConfig
from oarlock.llm.engine.noted import Noted
from oarlock.llm.engine.params import Constraint, SamplingParams
from oarlock.llm.engine.texts import Matcher
from oarlock.llm.loading import Text
from oarlock.llm.models import LanguageModel
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.ranks import RanksConfig
from oarlock.llm.ranks.leader import Team
from oarlock.llm.tokenizers import Tokenizer


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
    rounded_anew: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def defaults(self) -> SamplingParams:
        """How tokens are drawn where a request does not say otherwise."""
        return SamplingParams(**self.generation)


def open_engine(
    model: str | os.PathLike | LanguageModel,
    *,
    tokenizer: Tokenizer | None = None,
    weights: str = "fp32",
    max_length: int | None = None,
    generation_config: str = "auto",
    config: EngineConfig = EngineConfig(),
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
        ranks: processes that compute the model together, or also where they come from.

    Raises:
        ValueError: the path or model cannot be read or run, or not be cut for so many ranks.
        ConnectionError: a rank was lost.
    """
    several = RanksConfig(count=ranks) if isinstance(ranks, int) else ranks
    if generation_config not in ("auto", "off"):
        raise ValueError(f"generation_config must be auto or off, got {generation_config!r}.")
    noted: Noted | None = None
    if isinstance(model, LanguageModel):
        family, own, text = models.name_of(model), model.config, Text()
        parameters = {name: one.numpy() for name, one in model.state_dict().items()}
        generation: dict[str, Any] = {}
        if max_length is not None:
            raise ValueError("max_length is for models that are read; this one has its own.")
    else:
        found = loading.load(model, max_length=max_length)
        family, own, text = found.family, found.config, found.text
        parameters = noted = Noted(found.parameters, weights)  # type: ignore[assignment]
        generation = _checked(found.generation, model) if generation_config == "auto" else {}
    if tokenizer is not None:
        text = dataclasses.replace(text, tokenizer=tokenizer)
    packed, team = _packed(family, own, parameters, several, weights=weights, max_length=max_length)
    constrain: Callable[[Constraint], Matcher] | None = None
    if text.tokenizer is not None:
        from oarlock.llm.engine.constraints import Constraints

        constrain = Constraints(text.tokenizer, packed.vocab, text.eos)
    try:
        engine = Engine(
            packed, config, tokenizer=text.tokenizer, ends=text.eos, constrain=constrain, team=team
        )
    except BaseException:
        if team is not None:
            team.close()
        raise
    return Opened(
        engine=engine,
        family=family,
        config=own,
        text=text,
        generation=generation,
        weights=weights,
        parameters=packing.count(family, own),
        rounded_anew={} if noted is None else noted.rounded_anew,
    )


def _packed(
    family: str,
    config: ModelConfig,
    parameters: packing.Parameters,
    ranks: RanksConfig,
    **options: Any,
) -> tuple[Model, Team | None]:
    """The first rank's part, once the others have theirs; or the whole model."""
    if ranks.count == 1:
        return packing.pack(family, config, parameters, **options), None
    parts = packing.parts(family, config, parameters, ranks=ranks.count, **options)
    team = Team(ranks)
    try:
        for rank, part in parts:
            if rank > 0:
                team.deliver(rank, part)
    except BaseException:
        team.close()
        raise
    return part, team  # that of the first comes last


def _checked(generation: Mapping[str, float], source: str | os.PathLike) -> dict[str, Any]:
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
