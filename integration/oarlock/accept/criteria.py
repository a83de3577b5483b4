"""The acceptance criteria: 31 topics in 7 chapters, read from `criteria.toml` and checked.

>>> from oarlock.accept import criteria
>>> criteria.topic("2.4").title_en
'Distributed training'
>>> criteria.criterion("2.4.2").target
1.8
"""

import difflib
import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: The distributions that a criterion may belong to.
PACKAGES = (
    "native",
    "core-opt",
    "fleet-ext",
    "cinn-ext",
    "lite-ext",
    "llm",
    "vision",
    "aigc",
    "sci-cfd",
    "sci-md",
    "sci-weather",
    "sci-fsi",
)

Text = Annotated[str, Field(min_length=1, pattern=r"^\S(.*\S)?$")]
Package = Literal[PACKAGES]  # type: ignore[valid-type]
Rule = Literal["more", "less", "keep", "share", "required", "equal", "better"]


def target_ratio(rule: Rule, percent: float | None) -> float:
    """The ratio to reach, from the words of the call; the table is in `criteria.toml`."""
    n = (percent or 0.0) / 100
    return {"more": 1 + n, "less": 1 / (1 - n), "keep": 1 - n, "share": n}.get(rule, 1.0)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Criterion(_Entry):
    """One acceptance criterion and what measures it."""

    id: Annotated[str, Field(pattern=r"^[1-7]\.\d(\.\d)?$")]
    text_en: Text
    text_zh: Text
    package: Package
    kind: Literal["experiment", "report"] = "experiment"
    metric: Text
    unit: Text
    direction: Literal["higher", "lower"]
    rule: Rule | None = None
    percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    required: Annotated[float, Field(gt=0)] | None = None
    target: float | None = None  #: ratio to reach, exact; more than 1 means that ours is better
    conditions: tuple[Text, ...] = ()
    pending: Text | None = None  #: evidence that the criterion asks for and does not have yet

    @property
    def topic_id(self) -> str:
        return ".".join(self.id.split(".")[:2])

    @property
    def exclusive(self) -> bool:
        """Whether the target must be exceeded rather than reached."""
        return self.rule == "better"

    @model_validator(mode="after")
    def _target_follows_rule(self) -> Self:
        takes_percent = self.rule in ("more", "less", "keep", "share")
        if takes_percent != (self.percent is not None):
            raise ValueError(f"criterion {self.id}: rule {self.rule!r} and percent do not fit")
        if (self.rule == "required") != (self.required is not None):
            raise ValueError(f"criterion {self.id}: rule {self.rule!r} and required do not fit")
        if (self.rule is None) != (self.target is None):
            raise ValueError(f"criterion {self.id}: a target needs a rule, and a rule a target")
        if self.rule is not None and self.target is not None:
            exact = target_ratio(self.rule, self.percent)
            if round(exact, 4) != self.target:
                wanted = f"rule {self.rule!r} gives {exact:.4f}"
                raise ValueError(f"criterion {self.id}: target {self.target}, but {wanted}")
            object.__setattr__(self, "target", exact)  # the file rounds it for the reader
        return self


class Topic(_Entry):
    """One topic with its criteria, in the order of the call."""

    id: Annotated[str, Field(pattern=r"^[1-7]\.\d$")]
    title_en: Text
    title_zh: Text
    package: Package
    summary_en: Text
    summary_zh: Text
    criteria: Annotated[tuple[Criterion, ...], Field(alias="criterion", min_length=1)]

    @property
    def summary(self) -> str:
        return self.summary_en

    @property
    def chapter_id(self) -> str:
        return self.id.split(".")[0]

    @model_validator(mode="before")
    @classmethod
    def _package_is_inherited(cls, values: dict[str, Any]) -> dict[str, Any]:
        package = values.get("package")
        inherited = [{"package": package} | one for one in values.get("criterion", ())]
        return values | {"criterion": inherited}

    @model_validator(mode="after")
    def _criteria_are_numbered(self) -> Self:
        ids = [criterion.id for criterion in self.criteria]
        numbered = [f"{self.id}.{number + 1}" for number in range(len(ids))]
        if ids != ([self.id] if len(ids) == 1 else numbered):
            raise ValueError(f"topic {self.id}: criteria are numbered {ids}")
        return self


class Chapter(_Entry):
    id: Annotated[str, Field(pattern=r"^[1-7]$")]
    title_en: Text
    title_zh: Text


class Criteria(_Entry):
    """All chapters and topics; looked up by id."""

    chapters: Annotated[tuple[Chapter, ...], Field(alias="chapter")]
    topics: Annotated[tuple[Topic, ...], Field(alias="topic")]

    @model_validator(mode="after")
    def _topics_have_chapters(self) -> Self:
        ids = [topic.id for topic in self.topics]
        if len(set(ids)) != len(ids):
            raise ValueError(f"topics appear twice: {sorted({i for i in ids if ids.count(i) > 1})}")
        orphans = {topic.chapter_id for topic in self.topics} - {c.id for c in self.chapters}
        if orphans:
            raise ValueError(f"topics without a chapter: {sorted(orphans)}")
        return self

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """All criteria, in the order of the call."""
        return tuple(criterion for topic in self.topics for criterion in topic.criteria)

    def topic(self, id: str) -> Topic:
        """The topic of an id such as "2.4"; ValueError proposes near ones."""
        known = {topic.id: topic for topic in self.topics}
        return _lookup("topic", id, known)

    def criterion(self, id: str) -> Criterion:
        """The criterion of an id such as "1.1" or "2.4.1"; ValueError proposes near ones."""
        known = {criterion.id: criterion for criterion in self.criteria}
        if id not in known and id in {topic.id for topic in self.topics}:
            several = ", ".join(criterion.id for criterion in self.topic(id).criteria)
            raise ValueError(f"topic {id} has several criteria; name one of: {several}")
        return _lookup("criterion", id, known)

    def select(self, id: str) -> tuple[Criterion, ...]:
        """The criteria of a chapter ("2"), a topic ("2.4") or one criterion ("2.4.1")."""
        known: dict[str, tuple[Criterion, ...]] = {one.id: (one,) for one in self.criteria}
        known |= {topic.id: topic.criteria for topic in self.topics}
        for chapter in self.chapters:
            inside = [one for one in self.criteria if one.id.split(".")[0] == chapter.id]
            known[chapter.id] = tuple(inside)
        return _lookup("chapter, topic or criterion", id, known)


def _lookup(what: str, id: str, known: dict[str, Any]) -> Any:
    if id in known:
        return known[id]
    near = difflib.get_close_matches(id, known, n=4, cutoff=0.5)
    near = near or [one for one in known if one.split(".")[0] == id.split(".")[0]]
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"no {what} {id!r}; {hint}")


@cache
def load() -> Criteria:
    """The criteria of this package."""
    text = (files("oarlock.accept") / "criteria.toml").read_text(encoding="utf-8")
    return Criteria.model_validate(tomllib.loads(text))


def topics() -> tuple[Topic, ...]:
    """All topics, in the order of the call."""
    return load().topics


def topic(id: str) -> Topic:
    """See `Criteria.topic`."""
    return load().topic(id)


def criterion(id: str) -> Criterion:
    """See `Criteria.criterion`."""
    return load().criterion(id)
