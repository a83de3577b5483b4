"""What a task is: one YAML file that says where items come from, how they are asked, and how judged."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

Ability = Literal[
    "language",
    "knowledge",
    "reading",
    "reasoning",
    "mathematics",
    "code",
    "instructions",
    "tools",
    "safety",
    "long_context",
]
ABILITIES: tuple[Ability, ...] = Ability.__args__  # type: ignore[attr-defined]
Tier = Literal["easy", "medium", "hard"]
TIERS: tuple[Tier, ...] = Tier.__args__  # type: ignore[attr-defined]
Output = Literal["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"]

#: Letters, digits and underscores, from a letter on: safe in file names and patterns.
Name = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class TierRule(_Part):
    """Tiers of single items by a number that each has.

    Args:
        field: of the item, such as its number of steps.
        easy: largest value of the first tier.
        medium: largest value of the second; what is above is hard.
    """

    field: str
    easy: float
    medium: float

    @pydantic.model_validator(mode="after")
    def _ascending(self) -> "TierRule":
        if self.easy >= self.medium:
            raise ValueError(f"easy must be below medium, got {self.easy:g} and {self.medium:g}")
        return self

    def of(self, fields: dict[str, Any]) -> Tier:
        """Tier of an item."""
        value = fields[self.field]
        return "easy" if value <= self.easy else "medium" if value <= self.medium else "hard"


class Source(_Part):
    """A reader of `oarlock.llm.eval.sources` and what it is asked for."""

    reader: Name
    options: dict[str, Any] = {}


class FewShot(_Part):
    """Solved examples before each question.

    Args:
        count: how many.
        options: of the source, instead of the task's own (such as another split); without, they are
            other items of the task itself.
        pick: the first ones of the examples' source, or drawn anew for each item by its number.
        separator: behind each example.
        target: template of their answers, where they show more than the task's target, such as a solution.
    """

    count: int = pydantic.Field(ge=1)
    options: dict[str, Any] | None = None
    pick: Literal["first", "random"] = "first"
    separator: str = "\n\n"
    target: str | None = None


class FilterStep(_Part):
    """One step from the model's text to its answer; see `oarlock.llm.eval.filters`."""

    kind: Name
    options: dict[str, Any] = {}


class MetricUse(_Part):
    """A metric of `oarlock.llm.eval.metrics` and its options."""

    name: Name
    options: dict[str, Any] = {}


class Task(_Part):
    """A task, as its YAML file has it.

    Args:
        name: unique.
        version: raised by every change that changes scores.
        description: one line.
        ability: what it measures.
        tier: difficulty of all items, or a rule for each.
        tier_reason: why that tier, in terms that can be checked.
        language: of the questions.
        licence: of the data, with its origin.
        source: of the items.
        output: what is asked of the model.
        prompt: Jinja template over an item's fields.
        variants: other templates that ask the same, for prompt-sensitivity runs.
        target: Jinja template of the right continuation or answer.
        choices: field that holds an item's possible answers.
        gold: field that holds the index of the right one.
        delimiter: between prompt and answer.
        few_shot: solved examples.
        stop: texts at which a generated answer ends.
        max_tokens: most tokens of a generated answer.
        filters: ways from text to answer, all reported; empty for the text as it is.
        metrics: how a generated answer is judged; other outputs have theirs.
        primary: the score of the task, "metric" or "metric,filter".
        cluster: field whose equal values mark items that share a source, such as a passage.
        chance: expected score of guessing.
    """

    name: Name
    version: int = pydantic.Field(ge=1)
    description: str
    ability: Ability
    tier: Tier | TierRule
    tier_reason: str = pydantic.Field(min_length=10)
    language: Literal["en", "zh"]
    licence: str
    source: Source
    output: Output
    prompt: str
    variants: dict[Name, str] = {}
    target: str = ""
    choices: str | None = None
    gold: str | None = None
    delimiter: str = " "
    few_shot: FewShot | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = pydantic.Field(default=256, ge=1)
    filters: dict[Name, tuple[FilterStep, ...]] = {}
    metrics: tuple[MetricUse, ...] = ()
    primary: str
    cluster: str | None = None
    chance: float | None = pydantic.Field(default=None, ge=0, le=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Task":
        if (self.output == "multiple_choice") != (
            self.choices is not None and self.gold is not None
        ):
            raise ValueError(
                "choices and gold belong to multiple_choice, and both are needed there"
            )
        if (self.output == "generate_until") != bool(self.metrics):
            raise ValueError("metrics belong to generate_until, and are needed there")
        if self.filters and self.output != "generate_until":
            raise ValueError("filters belong to generate_until")
        if self.output == "loglikelihood" and not self.target:
            raise ValueError("loglikelihood needs a target")
        if self.output == "loglikelihood_rolling" and (self.few_shot or self.variants):
            raise ValueError("loglikelihood_rolling takes no few_shot and no variants")
        if "default" in self.variants:
            raise ValueError("variants: 'default' is the task's own prompt")
        return self

    def template(self, variant: str) -> str:
        """Prompt template ``variant``, "default" for the task's own."""
        if variant == "default":
            return self.prompt
        if variant not in self.variants:
            known = ", ".join(["default", *self.variants])
            raise ValueError(f"task {self.name} has no variant {variant!r}; it has: {known}.")
        return self.variants[variant]

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Tiers that its items may have."""
        return TIERS if isinstance(self.tier, TierRule) else (self.tier,)


def load(path: Path) -> Task:
    """Read a task's file.

    Raises:
        ValueError: it is no YAML or no task; names the file and every wrong field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        task = Task.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError, pydantic.ValidationError) as error:
        raise ValueError(f"{path} is no task: {error}") from error
    if task.name != path.stem:
        raise ValueError(f"{path} must be named {task.name}.yaml, as its task is.")
    return task
