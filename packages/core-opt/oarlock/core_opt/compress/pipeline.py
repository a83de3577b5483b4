"""``oneshot``: a recipe carried out on a model, resumable and all or nothing."""

import contextlib
import copy
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from paddle import nn

from . import saving, statistics
from .analysis.analyse import Question, analyse
from .analysis.report import Report
from .layers import PrunedLinear, QuantizedLinear
from .modifiers.base import Context, Data, LayerModifier, ModelModifier, Progress
from .recipe import Recipe
from .state import StateFolder, fingerprint
from .statistics import InputStatistics
from .structure import Structure, get, matching, put, structure
from .work import LayerWork

logger = logging.getLogger("oarlock.core_opt.compress")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """What became of one linear layer.

    Args:
        name: of the layer.
        relative_error: mean squared error of its outputs over their mean square, on the calibration
            data (or for white inputs without).
        bits_per_weight: of codes, scales and residual together; of a pruned layer, of the weights
            that are kept, each with its own 32 bits.
        density: share of the weights that are kept.
        damping: of the Hessian, where there was one.
        rows: inputs that were seen.
    """

    name: str
    relative_error: float
    bits_per_weight: float
    density: float
    damping: float | None
    rows: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a recipe did.

    Args:
        layers: each linear layer that was changed; once for each pass.
        modifiers: what the modifiers of the whole model tell, by their place and kind.
        bytes_before, bytes_after: of all parameters and buffers of the model.
    """

    layers: tuple[LayerResult, ...]
    modifiers: dict[str, dict[str, Any]]
    bytes_before: int
    bytes_after: int


def oneshot(
    model: nn.Layer,
    recipe: Recipe,
    data: Data | None = None,
    *,
    report: Report | None = None,
    state: str | os.PathLike | None = None,
    on_progress: Progress = lambda done, total, text: None,
) -> Result:
    """Compress a model in place.

    Args:
        model: with ``nn.Linear`` layers; those that change are replaced.
        recipe: what to do.
        data: calibration data; None only for recipes that need none.
        report: what ``analyse`` told of this model, for modifiers that go by it; None makes one when
            it is needed.
        state: folder in which finished blocks are kept. Called again with the same model, recipe and
            data after a stop, it goes on from there and ends with the same bits.
        on_progress: called with (done, total, text) after each block.

    Returns:
        What became of the layers.

    Raises:
        ValueError: bad data, a layer that a modifier cannot work on, and so on; names the cause and
            the remedy. The model is as before.
    """
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be a Recipe, got {type(recipe).__name__}.")
    found = structure(model, blocks=recipe.blocks)
    _check_data(recipe, data)
    settings = {"recipe": recipe.to_dict(), "report": None if report is None else report.to_dict()}
    folder = StateFolder(
        state, "" if state is None else fingerprint(model, settings, _batches(data))
    )
    run = _Run(model, recipe, data, report, found, folder, on_progress)
    before, known = model_bytes(model), set(model.sublayers())
    trains = any(getattr(modifier, "trains", False) for modifier in recipe.modifiers)
    with _all_or_nothing(model, numbers=trains), statistics.evaluation(model):
        for number, part in enumerate(recipe.passes()):
            if isinstance(part, ModelModifier):
                run.whole(number, part)
            else:
                run.layers(number, part)
    for layer in model.sublayers():
        if layer not in known:
            layer.training = model.training
    return Result(
        layers=tuple(run.results),
        modifiers=run.told,
        bytes_before=before,
        bytes_after=model_bytes(model),
    )


def model_bytes(model: nn.Layer) -> int:
    """Bytes of parameters and kept buffers; pruned weights count whole."""
    return sum(int(np.prod(t.shape)) * t.element_size() for t in model.state_dict().values())


def _batches(data: Data | None) -> Any:
    return [] if data is None else data.batches


def _check_data(recipe: Recipe, data: Data | None) -> None:
    if data is None:
        needing = [m.kind for m in recipe.modifiers if _needs_data(m)]
        if needing:
            raise ValueError(f"data is None, but {', '.join(needing)} need calibration data.")
        return
    if not isinstance(data, Data):
        raise ValueError(f"data must be a Data(batches=..., loss=...), got {type(data).__name__}.")
    statistics.check_batches(data.batches)


def _needs_data(modifier: Any) -> bool:
    return isinstance(modifier, ModelModifier) or modifier.needs_data


@contextlib.contextmanager
def _all_or_nothing(model: nn.Layer, *, numbers: bool) -> Iterator[None]:
    """Put every layer back after an error, and with ``numbers`` all parameters and buffers."""
    layers = [(layer, dict(layer._sub_layers)) for layer in model.sublayers(include_self=True)]
    kept = [(t, t.clone()) for t in model.state_dict().values()] if numbers else []
    try:
        yield
    except BaseException:
        for layer, held in layers:
            layer._sub_layers.clear()
            layer._sub_layers.update(held)
        for tensor, value in kept:
            tensor.set_value(value)
        raise


class _Run:
    """The state of one call of ``oneshot``."""

    def __init__(
        self,
        model: nn.Layer,
        recipe: Recipe,
        data: Data | None,
        report: Report | None,
        found: Structure,
        folder: StateFolder,
        on_progress: Progress,
    ):
        self.model, self.recipe, self.data = model, recipe, data
        self.structure, self.folder, self.progress = found, folder, on_progress
        self.results: list[LayerResult] = []
        self.told: dict[str, dict[str, Any]] = {}
        self._report = report
        self._calls: dict[str, int] = {}
        needs = [getattr(modifier, "needs_original", False) for modifier in recipe.modifiers]
        self._original = copy.deepcopy(model) if any(needs) else None

    def whole(self, number: int, modifier: ModelModifier) -> None:
        """A modifier of the whole model, or what is kept of it."""
        key = f"{number}-{modifier.kind}"
        kept = self.folder.get(key)
        if kept is None:
            told = modifier.apply(self.model, self._context(key))
            about = {"layers": saving.compressed_layers(self.model), "told": dict(told)}
            self.folder.put(key, about, saving.arrays_of(self.model))
        else:
            about, arrays = kept
            for name, fields in about["layers"].items():
                if saving.describe(get(self.model, name)) != fields:
                    put(self.model, name, saving.build(fields))
            saving.fill(self.model, arrays, key)
        self.told[key] = about["told"]
        self.progress(1, 1, modifier.kind)

    def _context(self, key: str) -> Context:
        assert self.data is not None
        inner = None if self.folder.folder is None else self.folder.folder / f"{key}-inside"
        return Context(
            data=self.data,
            structure=self.structure,
            original=self._original,
            report=self._make_report,
            folder=inner,
            progress=self.progress,
        )

    def _make_report(self, heads: Mapping[str, int]) -> Report:
        """The user's report, or one of the model as it is now."""
        if self._report is not None:
            return self._report
        assert self.data is not None
        return analyse(
            self.model,
            self.data.batches,
            self.data.loss,
            question=Question(heads=heads),
            blocks=self.structure.blocks,
            predictions=self.data.predictions,
            max_batches=self.recipe.max_batches,
            on_progress=self.progress,
        )

    def layers(self, number: int, modifiers: tuple[LayerModifier, ...]) -> None:
        """One pass over the linear layers, stage by stage."""
        alive = [
            name for name, layer in self.model.named_sublayers() if isinstance(layer, nn.Linear)
        ]
        if not alive:
            raise ValueError("no linear layer is left that could be compressed.")
        chosen = [
            (modifier, matching(alive, modifier.targets, modifier.ignore, modifier.kind))
            for modifier in modifiers
        ]
        todo = [name for name in alive if any(name in names for _, names in chosen)]
        measured = self.recipe.pipeline != "data_free" and self.data is not None
        stages = self._stages(todo, measured)
        moments = self._collect(todo, stop=False) if measured and len(stages) == 1 else None
        for step, names in enumerate(stages):
            key = f"{number}-layers-{step}"
            kept = self.folder.get(key)
            if kept is not None:
                self._restore(*kept)
            else:
                found = moments
                if measured and found is None:
                    found = self._collect(names, stop=True)
                self._work(key, names, chosen, found or {})
            self.progress(
                step + 1, len(stages), f"{', '.join(m.kind for m in modifiers)}: {names[0]}"
            )

    def _stages(self, todo: Sequence[str], measured: bool) -> list[list[str]]:
        """Layers that are measured together, in the order of execution."""
        if not measured or self.recipe.pipeline == "basic":
            return [list(todo)]
        assert self.data is not None
        first = next(iter(self.data.batches), None)
        if first is None:
            raise ValueError("batches is empty; calibration needs at least one batch.")
        self._calls = statistics.calls(self.model, first, self.data.loss, todo)
        stages: list[list[str]] = []
        last: str | None = None
        for name in self._calls:
            block = self.structure.block_of(name)
            if stages and block is not None and block == last:
                stages[-1].append(name)
            else:
                stages.append([name])
            last = block
        silent = [name for name in todo if name not in self._calls]
        return [*stages, silent] if silent else stages

    def _collect(self, names: Sequence[str], *, stop: bool) -> dict[str, InputStatistics]:
        assert self.data is not None
        found = statistics.collect(
            self.model,
            self.data.batches,
            self.data.loss,
            names,
            limit=self.recipe.max_batches,
            stop=stop and all(self._calls.get(name) == 1 for name in names),
        )
        for name, one in found.items():
            size = len(one.second_moment)
            if one.rows < size:
                logger.warning(
                    "%s saw %d inputs of size %d: its Hessian has no full rank",
                    name,
                    one.rows,
                    size,
                )
        return found

    def _work(
        self,
        key: str,
        names: Sequence[str],
        chosen: list[tuple[LayerModifier, tuple[str, ...]]],
        found: dict[str, InputStatistics],
    ) -> None:
        results, layers = [], {}
        for name in names:
            work = LayerWork.of(name, get(self.model, name), found.get(name))
            for modifier, targets in chosen:
                if name in targets:
                    modifier.apply(work)
            layers[name] = work.build()
            results.append(_result(work, layers[name]))
        for name, layer in layers.items():
            put(self.model, name, layer)
        about = {
            "layers": {name: saving.describe(layer) for name, layer in layers.items()},
            "results": [dataclasses.asdict(result) for result in results],
        }
        arrays = {
            f"{name}/{part}": array
            for name, layer in layers.items()
            for part, array in saving.arrays_of(layer).items()
        }
        self.folder.put(key, about, arrays)
        self.results.extend(results)

    def _restore(self, about: Any, arrays: dict[str, np.ndarray]) -> None:
        for name, fields in about["layers"].items():
            layer = saving.build(fields)
            prefix = f"{name}/"
            own = {
                key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)
            }
            saving.fill(layer, own, name)
            put(self.model, name, layer)
        self.results.extend(LayerResult(**one) for one in about["results"])


def _result(work: LayerWork, layer: nn.Layer) -> LayerResult:
    density = 1.0 if work.mask is None else float(work.mask.mean())
    if isinstance(layer, QuantizedLinear):
        bits = 8 * layer.num_bytes() / work.weight.size
    else:
        assert isinstance(layer, PrunedLinear)
        bits = 32 * density
    return LayerResult(
        name=work.name,
        relative_error=work.relative_error(),
        bits_per_weight=bits,
        density=density,
        damping=work.damping,
        rows=0 if work.statistics is None else work.statistics.rows,
    )
