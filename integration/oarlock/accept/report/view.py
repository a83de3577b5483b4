"""What the page shows, prepared from the standings: plain values and plots, no HTML."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oarlock.accept import wording
from oarlock.accept.criteria import Chapter, Criteria, Criterion, Topic
from oarlock.accept.report.curves import Chart, charts
from oarlock.accept.report.forest import Forest, Ratio, forest
from oarlock.accept.results import Result
from oarlock.accept.standing import VERDICTS, of_criterion, weakest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """Measurements made in the same way, at the same time and place."""

    names: tuple[str, ...]
    level: str
    facts: tuple[tuple[str, str], ...]
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionView:
    """One criterion that has evidence."""

    criterion: Criterion
    verdict: str
    evidence: tuple[Result, ...]
    forest: Forest | None
    charts: tuple[Chart, ...]
    notes: tuple[tuple[str, str], ...]
    runs: tuple[RunView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicView:
    topic: Topic
    verdict: str
    met: int
    sections: tuple[SectionView, ...]
    missing: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterView:
    chapter: Chapter
    topics: tuple[TopicView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    tier: str
    dates: str
    counts: dict[str, int]
    chapters: tuple[ChapterView, ...]

    @property
    def topics(self) -> tuple[TopicView, ...]:
        return tuple(topic for chapter in self.chapters for topic in chapter.topics)

    @property
    def later(self) -> tuple[TopicView, ...]:
        return tuple(topic for topic in self.topics if not topic.sections)

    @property
    def empty(self) -> bool:
        return len(self.later) == len(self.topics)


def _runs(evidence: Iterable[Result]) -> tuple[RunView, ...]:
    groups: dict[tuple, list[str]] = {}
    for one in evidence:
        recorded = (
            ("Date", wording.in_words(one.date)),
            ("Commit", wording.in_words(one.commit)),
            ("Hardware", wording.in_words(one.hardware)),
            ("Versions", wording.in_words(one.versions)),
            ("Seeds", wording.in_words(one.seeds)),
        )
        facts = tuple((label, text) for label, text in recorded if text)
        groups.setdefault((wording.LEVELS[one.level], facts, one.command), []).append(one.name)
    return tuple(
        RunView(names=tuple(names), level=level, facts=facts, command=command)
        for (level, facts, command), names in groups.items()
    )


def _section(criterion: Criterion, evidence: tuple[Result, ...]) -> SectionView:
    return SectionView(
        criterion=criterion,
        verdict=of_criterion((e.verdict for e in evidence), pending=criterion.pending),
        evidence=evidence,
        forest=forest(
            Ratio(name=e.name, ratio=e.ratio, ci=e.ci, target=e.target, verdict=e.verdict)
            for e in evidence
        ),
        charts=charts(
            (curve for e in evidence for curve in e.series), {e.baseline_name for e in evidence}
        ),
        notes=tuple((e.name, e.notes) for e in evidence if e.notes),
        runs=_runs(evidence),
    )


def _topic(topic: Topic, results: Mapping[str, tuple[Result, ...]]) -> TopicView:
    verdicts = [
        of_criterion((e.verdict for e in results.get(c.id, ())), pending=c.pending)
        for c in topic.criteria
    ]
    return TopicView(
        topic=topic,
        verdict=weakest(verdicts),
        met=verdicts.count("met"),
        sections=tuple(_section(c, results[c.id]) for c in topic.criteria if results.get(c.id)),
        missing=tuple(c for c in topic.criteria if not results.get(c.id)),
    )


def page(tier: str, criteria: Criteria, results: Mapping[str, tuple[Result, ...]]) -> PageView:
    """The whole page for one tier.

    Raises:
        ValueError: `results` names a criterion that does not exist.
    """
    if strangers := set(results) - {criterion.id for criterion in criteria.criteria}:
        names = ", ".join(sorted(strangers))
        raise ValueError(f"evidence for unknown criteria: {names} (tier {tier}); see criteria.toml")
    topics = [_topic(topic, results) for topic in criteria.topics]
    dates = sorted({e.date[:10] for evidence in results.values() for e in evidence})
    return PageView(
        tier=tier,
        dates=" to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "",
        counts={name: sum(t.verdict == name for t in topics) for name in VERDICTS},
        chapters=tuple(
            ChapterView(
                chapter=chapter,
                topics=tuple(t for t in topics if t.topic.chapter_id == chapter.id),
            )
            for chapter in criteria.chapters
        ),
    )
