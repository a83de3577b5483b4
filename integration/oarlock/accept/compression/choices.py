"""Carrying out the choices of a redundancy report one by one, to measure what they cost."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from oarlock.accept.compression.subjects import Subject
from oarlock.core_opt import compress
from oarlock.core_opt.compress import statistics
from oarlock.core_opt.compress.modifiers.pruning import Pattern
from oarlock.core_opt.compress.structure import get, put
from oarlock.llm.models.rwkv4 import RWKV4


def loss(model: Any, batch: Any) -> paddle.Tensor:
    """The loss of a batch, as ``analyse`` and ``oneshot`` call it."""
    return model.loss(*batch)


class Choices:
    """A model, its report, and the powers of the inputs that Wanda's score needs."""

    def __init__(self, subject: Subject, report: compress.Report):
        self._model, self._report = subject.model, report
        names = [one.name for one in report.layers]
        found = statistics.collect(self._model, subject.calibration, loss, names)
        self._powers: Mapping[str, NDArray[np.float64]] = {
            name: np.diagonal(one.second_moment)[:, None] for name, one in found.items()
        }

    @contextmanager
    def carried_out(self, choice: compress.Choice) -> Iterator[None]:
        """The model with one choice carried out inside, as it was after."""
        layer: Any = get(self._model, choice.target)
        if choice.kind == "block":
            # RWKV's blocks return their state beside the hidden values
            returned = 2 if isinstance(self._model, RWKV4) else None
            put(self._model, choice.target, compress.Skip(returned))
            try:
                yield
            finally:
                put(self._model, choice.target, layer)
            return
        before = layer.weight.numpy()
        layer.weight.set_value(self._changed(before.astype(np.float64), choice).astype(np.float32))
        try:
            yield
        finally:
            layer.weight.set_value(before)

    def _changed(self, weight: NDArray[np.float64], choice: compress.Choice) -> NDArray[np.float64]:
        rows = len(weight)
        if choice.kind == "bits":
            bits, _, group = choice.setting.partition("g")
            return self.rounded(weight, int(bits), int(group) if group else rows)
        if choice.kind == "sparsity":
            score = np.square(weight) * self._powers[choice.target]
            named = ":" in choice.setting
            pattern = Pattern.parse(choice.setting) if named else Pattern()
            share = 0.5 if named else float(choice.setting)
            return weight * pattern.mask(score, share, per_output=True)
        kept = weight.copy()
        kept[self._gone(choice, rows)] = 0
        return kept

    @staticmethod
    def rounded(weight: NDArray[np.float64], bits: int, group: int) -> NDArray[np.float64]:
        """Rounded to nearest, as the report foretells it."""
        grid = compress.AbsMax().grid(weight, bits=bits, group=group, symmetric=False)
        return grid.round(weight)

    def _gone(self, choice: compress.Choice, rows: int) -> NDArray[np.int64]:
        """Rows that a removal takes."""
        kind = "head" if choice.kind == "head" else "neuron"
        unit = next(u for u in self._report.units if (u.layer, u.kind) == (choice.target, kind))
        if kind == "head":
            size = rows // len(unit.increase)
            return np.arange(int(choice.setting) * size, (int(choice.setting) + 1) * size)
        order = np.argsort(np.asarray(unit.increase), kind="stable")
        return order[: round(float(choice.setting) * rows)]
