"""The page is whole, well formed, safe against what evidence may contain, and loads nothing."""

import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from oarlock.accept import criteria, report
from oarlock.accept.report import curves, forest, scale, writer
from oarlock.accept.results import ResultsCorrupt

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror='a'>\"&{{ 7*7 }}"


class Page(HTMLParser):
    """Collects elements, and insists that every tag is closed where it should be."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        shown = (text for tag, text in self.texts if tag not in ("script", "style"))
        return " ".join(" ".join(shown).split())


def curve(label: str, y: list[float], x_label: str = "step") -> dict:
    return {
        "label": label,
        "x": list(range(len(y))),
        "y": y,
        "x_label": x_label,
        "y_label": "loss",
    }


@pytest.fixture
def results(write_evidence, entry):
    falling = [5.0 * 0.9**i for i in range(50)]
    write_evidence(
        "1.1",
        entry(series=[curve("AdamW, tuned", falling), curve("Muon", falling[::-1])]),
        entry(name="step", verdict="short", ratio=0.93, ci=[0.9, 0.95], target=0.97),
        entry(name="cpu", verdict="info", target=None, ci=None, command="other command"),
    )
    return write_evidence(
        "2.4.2", entry(level="emulated", notes="slowed by tc"), entry(name="b", level="simulated")
    )


@pytest.fixture
def html(results):
    return writer.render(results)


def test_all_topics_and_their_counts(html):
    page = Page(html)
    rows = [a for a in page.all("tr") if "data-is" in a]
    assert len(rows) == 31
    assert [a["data-is"] for a in rows].count("not yet") == 30
    assert rows[0]["data-is"] == "short"
    for topic in criteria.topics():
        assert f'id="topic-{topic.id}"' in html
        assert topic.title_en in page.text
        for criterion in topic.criteria:
            assert criterion.text_en in page.text
            assert criterion.text_zh in page.text


def test_evidence_is_there_in_words_and_numbers(html):
    text = Page(html).text
    for part in (
        "202.4 s",
        "137.7 s",
        "1.47×",
        "1.38–1.55",
        "0.93×",
        "≥ 0.97",
        "Measured: real work, real clock.",
        "Emulated: real work",
        "Simulated: a model of a machine",
        "slowed by tc",
        "cpu Xeon, cores 2",
        "paddlepaddle 3.3.1",
        "0123abc",
        "./pants accept run 1.1 --tier full",
        "other command",
        "Criterion 2.4.1 not yet",
    ):
        assert part in text


def test_loads_nothing(html):
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import|@font-face|srcset", html)
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        assert attributes.get("href", "#").startswith("#"), tag
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert "default-src 'none'" in policy


def test_links_ids_and_labels_fit_together(html):
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for key in ("href", "aria-labelledby", "data-copy"):
            if key in attributes:
                assert attributes[key].removeprefix("#") in ids, (tag, attributes)


def test_headings_descend_one_level_at_a_time(html):
    levels = [int(tag[1]) for tag, _ in Page(html).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_without_scripts_nothing_is_missing(html):
    hidden = [(tag, a) for tag, a in Page(html).elements if "hidden" in a]
    assert hidden
    assert all(tag == "button" or a["class"] == "filters" for tag, a in hidden)
    assert all("data-needs-script" in a for _, a in hidden)


def test_svg_is_well_formed(html):
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) > 35
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert len(re.findall("<polyline", html)) == 2
    assert len(re.findall('<circle class="dot"', html)) == 5


def test_hostile_text_stays_text(write_evidence, entry):
    fields = ("name", "metric", "unit", "baseline_name", "date", "command", "notes", "commit")
    hostile = entry(
        **{field: HOSTILE for field in fields},
        hardware={HOSTILE: HOSTILE},
        versions={HOSTILE: [HOSTILE]},
        seeds=HOSTILE,
        series=[curve(HOSTILE, [1.0, 2.0], HOSTILE)],
    )
    harmless = writer.render(write_evidence("1.1", entry(series=[curve("a", [1.0, 2.0])])))
    page = Page(writer.render(write_evidence("1.1", hostile)))
    assert len(page.all("script")) == 1 and page.all("img") == []
    assert not any(key.startswith("on") for _, a in page.elements for key in a)
    assert HOSTILE in "".join(text for _, text in page.texts)
    # The hostile notes add one list of notes; nothing else may differ in structure.
    tags = [tag for tag, _ in page.elements]
    for tag in ("p", "svg", "table", "tr", "td", "dl", "dd", "pre", "button"):
        assert tags.count(tag) == len(Page(harmless).all(tag)), tag


def test_no_results_is_said(tmp_path):
    page = Page(writer.render(tmp_path / "nothing"))
    assert "There are no results yet." in page.text
    assert len([a for a in page.all("tr") if a.get("data-is") == "not yet"]) == 31


def test_write_makes_the_folder_and_returns_the_file(results, tmp_path):
    out = report.write(results, tmp_path / "deep" / "er" / "report.html")
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_tiers(write_evidence, entry):
    results = write_evidence("1.1", entry(), tier="quick")
    assert "quick tier" in writer.render(results)
    assert "There are no results yet." in writer.render(results, tier="full")
    with pytest.raises(ValueError, match="tier must be one of full, quick, gpu, got 'slow'"):
        writer.render(results, tier="slow")


def test_corrupt_evidence_is_named_and_nothing_is_written(results, tmp_path):
    (results / "full" / "1.1.json").write_text('{"criterion": "1.1", "evi')
    with pytest.raises(ResultsCorrupt, match=r"1\.1\.json is not JSON"):
        report.write(results, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_unknown_criterion_is_refused(write_evidence, entry):
    results = write_evidence("9.9", entry())
    with pytest.raises(ValueError, match="unknown criteria: 9.9"):
        writer.render(results)


def test_ratios_that_cannot_be_drawn_keep_their_row(write_evidence, entry):
    results = write_evidence(
        "1.1",
        entry(),
        *(
            entry(name=f"odd-{number}", ratio=ratio, ci=None, target=None, verdict="info")
            for number, ratio in enumerate([None, math.nan, math.inf, 0.0, -2.0])
        ),
    )
    html = writer.render(results)
    assert html.count('<circle class="dot"') == 1
    assert html.count('class="label"') == 6
    Page(html)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(html, theme):
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", html)
    colours = {name: pair[theme] for name, *pair in pairs}

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(colours[a]), luminance(colours[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "quiet", "accent", "met", "short", "info", "none"):
        for ground in ("paper", "raised"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    for line in (f"line-{i}" for i in range(6)):
        assert contrast(line, "paper") >= 3.0, line


class TestScale:
    @pytest.mark.parametrize(
        "values", [(0, 1), (-3, 17), (0.001, 0.0012), (5, 5), (0, 0), (1e6, 3e6)]
    )
    def test_linear_spans_its_values_with_few_round_ticks(self, values):
        axis = scale.linear(values)
        assert axis.low <= min(values) and axis.high >= max(values)
        assert 2 <= len(axis.ticks) <= 8
        assert axis.percent(axis.low) == 0 and axis.percent(axis.high) == 100

    @pytest.mark.parametrize("values", [(1, 1), (0.97, 1.03), (0.5, 2), (1, 30), (1e-6, 1e6)])
    def test_logarithmic(self, values):
        axis = scale.logarithmic(values)
        assert axis.low < min(values) and axis.high > max(values)
        assert 2 <= len(axis.ticks) <= 8
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
        middle = math.sqrt(values[0] * values[1])
        assert axis.percent(middle) == pytest.approx(50)


def test_forest_positions():
    row = forest.Ratio(name="a", ratio=2.0, ci=(1.5, 2.5), target=1.1, verdict="met")
    plot = forest.forest([row])
    (drawn,) = plot.rows
    assert plot.one < drawn.target < drawn.low < drawn.at < drawn.high
    assert forest.forest([forest.Ratio(**json.loads(NOTHING))]) is None


NOTHING = '{"name": "a", "ratio": null, "ci": null, "target": 1.0, "verdict": "info"}'


class TestCurves:
    def test_baseline_is_grey_and_others_differ(self):
        (chart,) = curves.charts(
            [curve("b", [1, 2]), curve("a", [2, 1]), curve("c", [1, 1])], {"b"}
        )
        assert [line.colour for line in chart.lines] == [0, 1, 2]

    def test_axes_that_differ_make_two_charts(self):
        drawn = curves.charts([curve("a", [1, 2]), curve("a", [2, 1], "time (s)")], set())
        assert [chart.x_label for chart in drawn] == ["step", "time (s)"]

    def test_a_line_breaks_where_it_is_not_finite(self):
        (chart,) = curves.charts([curve("a", [1, 2, math.nan, 2, math.inf, 1])], set())
        assert len(chart.lines[0].strokes) == 3
        assert curves.charts([curve("a", [math.nan])], set()) == ()
        assert curves.charts([curve("a", [])], set()) == ()

    def test_wide_ranges_are_logarithmic(self):
        (chart,) = curves.charts([curve("a", [1e-4, 1.0])], set())
        assert chart.logarithmic
        (chart,) = curves.charts([curve("a", [0.0, 1.0])], set())
        assert not chart.logarithmic

    def test_thinning_keeps_the_extremes(self):
        y = [math.sin(i / 50) for i in range(20_000)]
        y[12_345], y[17] = 9.0, math.nan
        kept = curves.thin(range(len(y)), y)
        assert len(kept) <= curves.MOST_POINTS + 1
        assert (12_345, 9.0) in kept
        assert [x for x, _ in kept] == sorted(x for x, _ in kept)
