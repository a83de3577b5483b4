"""The redundancy report: what each structure holds, and what each compression choice would cost."""

import dataclasses
import html
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from ... import _checks

KINDS = ("bits", "sparsity", "block", "head", "neurons")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One thing that could be done, and the loss increase that is foretold for it.

    Args:
        kind: "bits" (rounding to nearest), "sparsity" (dropping weights by Wanda's score), "block",
            "head" or "neurons" (removal).
        target: name of the layer or block.
        setting: "4" or "4g32" for bits and group; "0.5" or "2:4" for sparsity; the number of the
            head; the share of neurons; "" for a block.
        increase: foretold increase of the loss, nats if the loss is in nats.
        linear: part of it that is of first order, less its sampling error; may be below 0.
        bits_per_weight: of the layer after it; None for removals.
    """

    kind: str
    target: str
    setting: str
    increase: float
    linear: float
    bits_per_weight: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """Redundancy of a linear layer.

    Args:
        name, in_features, out_features: of it.
        exponent_entropy: bits, of the exponents of its weights (8 would be none to gain).
        weight_rank: participation ratio of the squared singular values.
        input_rank: participation ratio of the eigenvalues of the inputs' second moment.
        gradient_rank: the same of the gradients of its outputs.
        fisher_trace: tr A tr G, the trace of its Fisher matrix.
    """

    name: str
    in_features: int
    out_features: int
    exponent_entropy: float
    weight_rank: float
    input_rank: float
    gradient_rank: float
    fisher_trace: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockFacts:
    """Redundancy of a block.

    Args:
        name: of it.
        influence: 1 - mean cosine of its inputs and outputs.
        entropy_increase: of the spectral entropy from its inputs to its outputs, nats.
    """

    name: str
    influence: float
    entropy_increase: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UnitFacts:
    """Redundancy of the heads or neurons before one layer.

    Args:
        layer: the linear layer that reads them.
        kind: "head" or "neuron".
        effective: participation ratio of the second moment of all units.
        similarity: of each unit with the most similar other, 0 to 1; of neurons the squared
            correlation about 0.
        increase: foretold loss increase of removing each alone.
    """

    layer: str
    kind: str
    effective: float
    similarity: tuple[float, ...]
    increase: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What ``analyse`` found.

    Args:
        loss: mean of the uncompressed model on the data.
        tokens: rows of inputs that were seen.
        layers, blocks, units: redundancy of each structure.
        choices: all compressions foretold.
    """

    loss: float
    tokens: int
    layers: tuple[LayerFacts, ...]
    blocks: tuple[BlockFacts, ...]
    units: tuple[UnitFacts, ...]
    choices: tuple[Choice, ...]

    def of(self, kind: str, target: str | None = None) -> tuple[Choice, ...]:
        """The choices of a kind, and of a target."""
        _checks.choice("kind", kind, KINDS)
        found = (choice for choice in self.choices if choice.kind == kind)
        return tuple(choice for choice in found if target in (None, choice.target))

    def increase(self, kind: str, target: str, setting: str = "") -> float:
        """What is foretold for one choice; ValueError if the report does not have it."""
        for choice in self.of(kind, target):
            if choice.setting == setting:
                return choice.increase
        settings = [choice.setting for choice in self.of(kind, target)]
        raise ValueError(
            f"the report has no {kind} {setting!r} of {target!r}; it has: {', '.join(settings) or 'none'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that ``to_dict`` described."""
        parts = {"layers": LayerFacts, "blocks": BlockFacts, "units": UnitFacts, "choices": Choice}
        try:
            built: dict[str, Any] = {
                name: tuple(part(**_tuples(one)) for one in values[name])
                for name, part in parts.items()
            }
            return cls(loss=values["loss"], tokens=values["tokens"], **built)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no redundancy report: {error}") from error

    def write_json(self, path: str | os.PathLike) -> None:
        """Write all values."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    @classmethod
    def read_json(cls, path: str | os.PathLike) -> Self:
        """Read what ``write_json`` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def write_html(self, path: str | os.PathLike) -> None:
        """Write a page of tables that needs nothing else."""
        Path(path).write_text("\n".join(_page(self)), encoding="utf-8")


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:1rem 0}
td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}
.scroll{overflow-x:auto}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}}
"""


def _page(report: Report) -> Iterator[str]:
    yield "<!doctype html><html lang='en'><meta charset='utf-8'><title>Redundancy report</title>"
    yield f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style>"
    yield "<h1>Redundancy report</h1>"
    yield (
        f"<p>Loss {report.loss:.5f} on {report.tokens:,} tokens. Increases are foretold to second "
        "order from gradients on these data; large ones are only an order.</p>"
    )
    settings = list(dict.fromkeys(choice.setting for choice in report.of("bits")))
    yield from _table(
        "Loss increase by bits of a weight",
        ["layer", *(f"{setting} bits" for setting in settings)],
        [
            [one.name, *(_of(report, "bits", one.name, setting) for setting in settings)]
            for one in report.layers
        ],
    )
    settings = list(dict.fromkeys(choice.setting for choice in report.of("sparsity")))
    yield from _table(
        "Loss increase by sparsity",
        ["layer", *settings],
        [
            [one.name, *(_of(report, "sparsity", one.name, setting) for setting in settings)]
            for one in report.layers
        ],
    )
    yield from _table(
        "Linear layers",
        ["layer", "shape", "exponent entropy, bits", "rank of weight", "of inputs", "of gradients"],
        [
            [
                one.name,
                f"{one.in_features} × {one.out_features}",
                *(_number(v) for v in (one.exponent_entropy, one.weight_rank, one.input_rank)),
                _number(one.gradient_rank),
            ]
            for one in report.layers
        ],
    )
    yield from _table(
        "Blocks",
        ["block", "influence", "entropy increase, nats", "loss increase of removal"],
        [
            [
                one.name,
                _number(one.influence),
                _number(one.entropy_increase),
                _of(report, "block", one.name, ""),
            ]
            for one in report.blocks
        ],
    )
    yield from _table(
        "Heads and neurons",
        ["read by", "kind", "number", "effective", "median similarity", "least loss increase"],
        [
            [
                one.layer,
                one.kind,
                str(len(one.increase)),
                _number(one.effective),
                _number(sorted(one.similarity)[len(one.similarity) // 2]),
                _number(min(one.increase)),
            ]
            for one in report.units
        ],
    )
    yield "</html>"


def _of(report: Report, kind: str, target: str, setting: str) -> str:
    for choice in report.of(kind, target):
        if choice.setting == setting:
            return _number(choice.increase)
    return "–"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _table(title: str, head: list[str], rows: list[list[str]]) -> Iterator[str]:
    if not rows or len(head) == 1:
        return
    yield f"<h2>{html.escape(title)}</h2><div class='scroll'><table><tr>"
    yield "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</table></div>"
