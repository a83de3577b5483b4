"""``analyse``: the redundancy report of a model on the user's data and task."""

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ... import _checks
from .. import statistics
from ..grids import check_bits, rows_of_group
from ..hooks import watching
from ..layers import weight_of
from ..modifiers.pruning import Pattern
from ..observers import AbsMax, Observer
from ..state import StateFolder, fingerprint
from ..structure import Structure, get, structure
from . import fisher, predict, spectra
from .fisher import BlockEffect, LayerFisher
from .report import BlockFacts, Choice, LayerFacts, Report, UnitFacts

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which choices are foretold.

    Args:
        bits: of weights, rounded to nearest.
        groups: rows that share a scale; None for all. Layers that a group does not divide are left
            out of it.
        symmetric, observer: of the grids.
        sparsities: shares of weights to drop in any place, by Wanda's score.
        patterns: such as "2:4", where they divide the layer.
        heads: number of attention heads by pattern of the linear layer that reads them.
        neurons: patterns of the layers that read neurons; None for layers in blocks with more
            inputs than outputs, unless they read the hidden state.
        neuron_shares: shares of neurons to remove, the least needed first.
    """

    bits: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    groups: tuple[int | None, ...] = (None,)
    symmetric: bool = False
    observer: Observer = AbsMax()
    sparsities: tuple[float, ...] = (0.25, 0.5, 0.75)
    patterns: tuple[str, ...] = ("2:4",)
    heads: Mapping[str, int] = dataclasses.field(default_factory=dict)
    neurons: tuple[str, ...] | None = None
    neuron_shares: tuple[float, ...] = (0.1, 0.25, 0.5)

    def __post_init__(self):
        for bits in self.bits:
            check_bits("bits", bits)
        for group in self.groups:
            if group is not None:
                _checks.whole("groups", group, 1)
        for name in ("sparsities", "neuron_shares"):
            for share in getattr(self, name):
                _checks.real(name, share, 0.0, 1.0, open_low=True, open_high=True)
        for pattern in self.patterns:
            Pattern.parse(pattern)
        for pattern, count in self.heads.items():
            _checks.whole(f"heads[{pattern!r}]", count, 1)


def analyse(
    model: nn.Layer,
    batches: Any,
    loss: statistics.Loss,
    *,
    question: Question = Question(),
    blocks: str | Sequence[str] | None = None,
    predictions: Callable[[Any], int] | None = None,
    max_batches: int | None = None,
    max_memory_mb: float = 2048.0,
    state: str | os.PathLike | None = None,
    on_progress: Progress = lambda done, total, text: None,
) -> Report:
    """Measure redundancy on data, and foretell the loss increase of compression choices.

    To second order a change D of a weight changes the loss by <gradient, D> + tr(D^T A D G) / 2, with
    Kronecker factors A of inputs and G of gradients; the first term is taken as far as it exceeds its
    sampling error. Theory and limits: docs/topics/1.3.md. The model
    is not changed.

    Args:
        model: as it was trained.
        batches: a list, or what can be iterated again; from the distribution that counts.
        loss: ``loss(model, batch)``, a mean over predictions.
        question: which choices.
        blocks: name of the list of blocks or names of the blocks; None finds it.
        predictions: number of predictions of a batch; None for the rows of its inputs.
        max_batches: to use; None for all.
        max_memory_mb: for sums; more layers at once need fewer passes over the data.
        state: folder in which the sums are kept after each pass and each tenth batch.
        on_progress: called with (done, total, text).

    Raises:
        ValueError: wrong data or settings; a loss that is not finite.
    """
    statistics.check_batches(batches)
    found = structure(model, blocks=blocks)
    _checks.real("max_memory_mb", max_memory_mb, 0.0, np.inf, open_low=True)
    if max_batches is not None:
        _checks.whole("max_batches", max_batches, 1)
    heads = _heads(model, found, question.heads)
    settings = {"blocks": list(found.blocks), "max_batches": max_batches, "memory": max_memory_mb}
    folder = StateFolder(state, "" if state is None else fingerprint(model, settings, batches))
    first = next(iter(batches), None)
    if first is None:
        raise ValueError("batches is empty; the analysis needs at least one batch.")
    width = _width(model, first, loss, found.blocks)
    passes = list(_passes(model, found, width, max_memory_mb * 2**20))
    facts = _Facts(model, found, question, heads, width)
    for number, names in enumerate(passes):
        source = _Source(model, batches, loss, predictions, max_batches)

        def progress(done: int, number: int = number) -> None:
            on_progress(number, len(passes), f"gradients, batch {done}")

        sums, mean, tokens = source.sums(names, width, folder, f"pass-{number}", progress)
        facts.add(sums, mean, tokens)
        on_progress(number + 1, len(passes), "gradients")
    return facts.report()


def _heads(model: nn.Layer, found: Structure, heads: Mapping[str, int]) -> dict[str, int]:
    """Number of heads by name of the layer that reads them."""
    named: dict[str, int] = {}
    for pattern, count in heads.items():
        names = fnmatch.filter(found.linears, pattern)
        if not names:
            raise ValueError(
                f"heads pattern {pattern!r} matches no linear layer; "
                f"{_checks.suggestion(pattern, found.linears)}"
            )
        for name in names:
            rows = get(model, name).weight.shape[0]
            if rows % count:
                raise ValueError(
                    f"heads[{pattern!r}]: {count} heads do not divide {rows} of {name}."
                )
            named[name] = count
    return named


def _width(model: nn.Layer, batch: Any, loss: statistics.Loss, blocks: Sequence[str]) -> int:
    """Size of the hidden states between blocks; 0 without blocks."""
    if not blocks:
        return 0
    seen: list[int] = []
    look = {blocks[0]: lambda x: seen.append(x.shape[-1])}
    with watching(model, before=look), statistics.evaluation(model), paddle.no_grad():
        loss(model, batch)
    if not seen:
        raise ValueError(
            f"the loss does not call block {blocks[0]!r}; name the blocks that it does."
        )
    return seen[0]


def _passes(model: nn.Layer, found: Structure, width: int, memory: float) -> Iterator[list[str]]:
    """Names of layers and blocks whose sums fit into the memory together."""
    names: list[str] = []
    used = 0.0
    sizes = {n: LayerFisher.num_bytes(*get(model, n).weight.shape) for n in found.linears}
    sizes |= dict.fromkeys(found.blocks, 16 * width * width)
    for name, size in sizes.items():
        if names and used + size > memory:
            yield names
            names, used = [], 0.0
        names.append(name)
        used += size
    yield names


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    model: nn.Layer
    batches: Any
    loss: statistics.Loss
    predictions: Callable[[Any], int] | None
    max_batches: int | None

    def sums(
        self,
        names: Sequence[str],
        width: int,
        folder: StateFolder,
        key: str,
        progress: Callable[[int], None],
    ) -> tuple[fisher.Sums, float, int]:
        """Sums over the batches, the mean loss and the number of tokens; begun again from ``key``."""
        layers = [n for n in names if isinstance(get(self.model, n), nn.Linear)]
        sums = fisher.empty(self.model, layers, [n for n in names if n not in layers], width)
        done, total = 0, 0.0
        kept = folder.get(key)
        if kept is not None:
            about, arrays = kept
            done, total = about["done"], about["loss"]
            _fill(sums, arrays)
            if about["finished"]:
                return sums, total / done, _tokens(sums)
        for number, batch in enumerate(self.batches):
            if self.max_batches is not None and number >= self.max_batches:
                break
            if number < done:
                continue
            total += fisher.accumulate(self.model, batch, self.loss, sums, self.predictions)
            done += 1
            if done % 10 == 0:
                folder.put(key, {"done": done, "loss": total, "finished": False}, _arrays(sums))
            progress(done)
        folder.put(key, {"done": done, "loss": total, "finished": True}, _arrays(sums))
        return sums, total / done, _tokens(sums)


def _tokens(sums: fisher.Sums) -> int:
    return int(max(o.tokens if isinstance(o, LayerFisher) else o.sums[3] for o in sums.values()))


def _arrays(sums: fisher.Sums) -> dict[str, np.ndarray]:
    return {
        f"{name}/{field.name}": np.asarray(getattr(one, field.name))
        for name, one in sums.items()
        for field in dataclasses.fields(one)
    }


def _fill(sums: fisher.Sums, arrays: Mapping[str, np.ndarray]) -> None:
    for name, one in sums.items():
        for field in dataclasses.fields(one):
            value = arrays[f"{name}/{field.name}"]
            setattr(one, field.name, value if value.ndim else float(value))


class _Facts:
    """Collects what the sums tell; sums of one pass are dropped after it."""

    def __init__(
        self,
        model: nn.Layer,
        found: Structure,
        question: Question,
        heads: Mapping[str, int],
        width: int,
    ):
        self._width = width
        self._model, self._structure, self._question, self._heads = model, found, question, heads
        self._layers: list[LayerFacts] = []
        self._blocks: list[BlockFacts] = []
        self._units: list[UnitFacts] = []
        self._choices: list[Choice] = []
        self._loss, self._tokens = 0.0, 0

    def add(self, sums: fisher.Sums, loss: float, tokens: int) -> None:
        self._loss, self._tokens = loss, max(tokens, self._tokens)
        for name, one in sums.items():
            if isinstance(one, BlockEffect):
                self._block(name, one)
            else:
                self._layer(name, one.mean())

    def report(self) -> Report:
        return Report(
            loss=self._loss,
            tokens=self._tokens,
            layers=tuple(self._layers),
            blocks=tuple(self._blocks),
            units=tuple(self._units),
            choices=tuple(self._choices),
        )

    def _block(self, name: str, one: BlockEffect) -> None:
        cosine, tokens = one.sums[0], max(one.sums[3], 1)
        before, after = (spectra.spectral_entropy(m) for m in (one.inputs, one.outputs))
        self._blocks.append(
            BlockFacts(
                name=name, influence=float(1 - cosine / tokens), entropy_increase=after - before
            )
        )
        self._choose("block", name, "", *predict.block_removal(one))

    def _choose(
        self,
        kind: str,
        target: str,
        setting: str,
        linear: float,
        quadratic: float,
        predictions: float,
        bits_per_weight: float | None = None,
    ) -> None:
        linear = predict.credible(linear, quadratic, predictions)
        self._choices.append(
            Choice(
                kind=kind,
                target=target,
                setting=setting,
                increase=float(linear + quadratic),
                linear=float(linear),
                bits_per_weight=bits_per_weight,
            )
        )

    def _change(
        self,
        kind: str,
        name: str,
        setting: str,
        change: np.ndarray,
        one: LayerFisher,
        bits: float | None = None,
    ) -> None:
        linear, quadratic = predict.linear(change, one), predict.quadratic(change, one)
        self._choose(kind, name, setting, linear, quadratic, one.predictions, bits)

    def _layer(self, name: str, one: LayerFisher) -> None:
        weight = weight_of(get(self._model, name))
        values = [np.linalg.eigvalsh(moment) for moment in (one.inputs, one.outputs)]
        self._layers.append(
            LayerFacts(
                name=name,
                in_features=weight.shape[0],
                out_features=weight.shape[1],
                exponent_entropy=spectra.exponent_entropy(weight),
                weight_rank=spectra.effective_rank(weight),
                input_rank=spectra.participation_ratio(values[0]),
                gradient_rank=spectra.participation_ratio(values[1]),
                fisher_trace=float(np.trace(one.inputs) * np.trace(one.outputs)),
            )
        )
        self._bits(name, weight, one)
        self._sparsity(name, weight, one)
        if name in self._heads:
            self._head(name, weight, one, self._heads[name])
        if self._reads_neurons(name, weight):
            self._neurons(name, weight, one)

    def _bits(self, name: str, weight: np.ndarray, one: LayerFisher) -> None:
        ask = self._question
        for group in ask.groups:
            if group is not None and len(weight) % group:
                continue
            rows = rows_of_group(len(weight), group, name)
            for bits in ask.bits:
                grid = ask.observer.grid(weight, bits=bits, group=rows, symmetric=ask.symmetric)
                size = bits + (32 if ask.symmetric else 40) / rows
                setting = str(bits) if group is None else f"{bits}g{group}"
                self._change("bits", name, setting, grid.round(weight) - weight, one, size)

    def _sparsity(self, name: str, weight: np.ndarray, one: LayerFisher) -> None:
        score = np.square(weight) * np.diagonal(one.inputs)[:, None]
        for share in self._question.sparsities:
            keep = Pattern().mask(score, share, per_output=True)
            self._change(
                "sparsity", name, f"{share:g}", weight * keep - weight, one, 32 * (1 - share)
            )
        for text in self._question.patterns:
            pattern = Pattern.parse(text)
            if len(weight) % (pattern.of or pattern.rows) or weight.shape[1] % pattern.columns:
                continue
            keep = pattern.mask(score, 0.5, per_output=True)
            size = 32 * float(keep.mean())
            self._change("sparsity", name, text, weight * keep - weight, one, size)

    def _head(self, name: str, weight: np.ndarray, one: LayerFisher, heads: int) -> None:
        size = len(weight) // heads
        increases = []
        for head in range(heads):
            change = np.zeros_like(weight)
            change[head * size : (head + 1) * size] = -weight[head * size : (head + 1) * size]
            self._change("head", name, str(head), change, one)
            increases.append(self._choices[-1].increase)
        blocks = one.inputs.reshape(heads, size, heads, size)
        between = np.einsum("gahb,gahb->gh", blocks, blocks) ** 0.5
        self._units.append(
            UnitFacts(
                layer=name,
                kind="head",
                effective=spectra.participation_ratio(np.linalg.eigvalsh(between)),
                similarity=tuple(spectra.head_similarity(one.inputs, heads).tolist()),
                increase=tuple(increases),
            )
        )

    def _reads_neurons(self, name: str, weight: np.ndarray) -> bool:
        patterns = self._question.neurons
        if patterns is not None:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        rows, out = weight.shape
        return self._structure.block_of(name) is not None and rows > out and rows != self._width

    def _neurons(self, name: str, weight: np.ndarray, one: LayerFisher) -> None:
        increase = neuron_increases(weight, one)
        self._units.append(
            UnitFacts(
                layer=name,
                kind="neuron",
                effective=spectra.participation_ratio(np.linalg.eigvalsh(one.inputs)),
                similarity=tuple(spectra.head_similarity(one.inputs, len(weight)).tolist()),
                increase=tuple(increase.tolist()),
            )
        )
        order = np.argsort(increase, kind="stable")
        for share in self._question.neuron_shares:
            change = np.zeros_like(weight)
            gone = order[: round(share * len(weight))]
            change[gone] = -weight[gone]
            self._change("neurons", name, f"{share:g}", change, one)


def neuron_increases(weight: np.ndarray, one: LayerFisher) -> np.ndarray:
    """Loss increase when each input of a layer alone is removed, [in]."""
    linear = -(one.gradient * weight).sum(1)
    quadratic = (
        0.5 * np.diagonal(one.inputs) * np.einsum("io,ip,op->i", weight, weight, one.outputs)
    )
    found = [predict.credible(a, b, one.predictions) + b for a, b in zip(linear, quadratic)]
    return np.array(found)
