"""Tracing potentials into programs that keep float64.

Two habits of Paddle 3.3's tracer spoil programs in silence. It rounds Python numbers that multiply, add
to or clip a float64 tensor to float32 (`exact_numbers` puts tensors in their place), and it gives
tensors of unknown size the size −1 (`TracedGraph` gives sizes as tensors).
"""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.potentials.base import Potential

#: The program's inputs, in order: their sizes and types; `vectors` has the potential's type.
INPUTS: dict[str, tuple[list[int | None], Any]] = {
    "species": ([None], "int64"),
    "owned": ([None], "int64"),  # 1 where an atom's energy counts, else 0
    "centers": ([None], "int64"),
    "neighbours": ([None], "int64"),
    "offsets": ([None], "int64"),
    "vectors": ([None, 3], None),
}


class TracedGraph(Graph):
    """A graph whose sizes are known when the program runs."""

    __slots__ = ()

    @property
    def atoms(self) -> Any:
        return paddle.shape(self.species)[0]

    @property
    def edges(self) -> Any:
        return paddle.shape(self.centers)[0]


class EnergyProgram(nn.Layer):
    """Energies of atoms [N] in eV, and the slopes of their sum by the edge vectors [E, 3] in eV/Å."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(
        self,
        species: Tensor,
        owned: Tensor,
        centers: Tensor,
        neighbours: Tensor,
        offsets: Tensor,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = (species, owned, centers, neighbours, offsets, vectors)
        graph = TracedGraph(
            species=species,
            centers=centers,
            neighbours=neighbours,
            offsets=offsets,
            vectors=vectors,
            structures=owned - 1,
            count=1,
        )
        vectors.stop_gradient = False
        energies = self.potential.atomic_energies(graph)
        total = (energies * owned.astype("float64")).sum()
        (slopes,) = paddle.grad([total], [vectors])
        # A program may not have an input that nothing uses, and not every potential needs all.
        sizes = paddle.stack([paddle.shape(one)[0] for one in inputs])
        return energies + (sizes.sum() * 0).astype("float64"), slopes


def export(potential: Potential, prefix: str) -> None:
    """Writes PREFIX.json and PREFIX.pdiparams."""
    potential.eval()
    dtype: Any = potential.config.dtype
    specification = [
        InputSpec(list(shape), kind or dtype, name) for name, (shape, kind) in INPUTS.items()
    ]
    with exact_numbers(), constant(potential), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tensor do not have 'place' interface")
        program = EnergyProgram(potential)
        traced: Any = paddle.jit.to_static(program, full_graph=True, input_spec=specification)
        _own_constants(program, traced.forward.concrete_program.parameters[0])
        paddle.jit.save(traced, prefix)


def _own_constants(program: EnergyProgram, used: Iterable[Tensor]) -> None:
    """Tensors that the program uses and no layer owns; Paddle saves only those of layers."""
    known = {tensor.name for tensor in program.to_static_state_dict().values()}
    for index, tensor in enumerate(used):
        if tensor.name not in known:
            program.register_buffer(f"constant_{index}", tensor)


@contextmanager
def constant(potential: Potential) -> Iterator[None]:
    """Inside, nothing is differentiated by the parameters, which halves the work of slopes."""
    learning = [one for one in potential.parameters() if not one.stop_gradient]
    for parameter in learning:
        parameter.stop_gradient = True
    try:
        yield
    finally:
        for parameter in learning:
            parameter.stop_gradient = False


@contextmanager
def exact_numbers() -> Iterator[None]:
    """While tracing, numbers that meet float64 tensors stay float64."""
    operators: Any = paddle._C_ops
    scale, clip = operators.scale, operators.clip

    def exact_scale(x: Any, factor: Any, bias: float = 0.0, bias_after_scale: bool = True) -> Any:
        if x.dtype != paddle.float64 or not isinstance(factor, int | float):
            return scale(x, factor, bias, bias_after_scale)
        if bias and not bias_after_scale:
            x = operators.add(x, _number(bias))
        if factor != 1.0:
            x = operators.multiply(x, _number(factor))
        return operators.add(x, _number(bias)) if bias_after_scale else x

    def exact_clip(x: Any, low: Any, high: Any, out: Any = None) -> Any:
        if x.dtype != paddle.float64:
            return clip(x, low, high, out=out)
        for bound, beyond in ((low, operators.less_than), (high, operators.greater_than)):
            limit = _number(bound) if isinstance(bound, int | float) else bound
            x = paddle.where(beyond(x, limit), limit, x)
        return x

    operators.scale, operators.clip = exact_scale, exact_clip
    try:
        yield
    finally:
        operators.scale, operators.clip = scale, clip


def _number(value: float) -> Any:
    return paddle.full([], float(value), dtype="float64")
