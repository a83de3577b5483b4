"""Constant matrices of an ONNX graph put on grids of 4 or 8 bits, for any graph.

Each ``MatMul`` (and ``Gemm``) with a constant matrix, of more than one row and column, becomes one of:

- ``blocks``: ONNX Runtime's operator MatMulNBits, y = x W with W = scale (code - zero) in groups of inputs.
  Its kernels round the activations to 8 bits too (``accuracy_level`` 4), or leave them float32 (1).
- ``int8``: standard operators. DynamicQuantizeLinear rounds x to uint8 with one scale a call, then
  MatMulInteger, then y = int32 (scale_x scale_w); W has one symmetric scale a column. Its codes are unsigned,
  around 128: with signed ones ONNX Runtime adds pairs of products in 16 bits where a processor has AVX2 but no
  VNNI, and what does not fit is cut off.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ... import _checks
from .codes import Codes, rounded

CONTRIB = "com.microsoft"
METHODS = ("blocks", "int8")
LEAST_GROUP, MOST_GROUP = 16, 128  #: inputs that share a scale in MatMulNBits

#: Makes the nodes of a product from the names of x and of the result.
Product = Callable[[str, str], list[onnx.NodeProto]]


def quantize(
    model: onnx.ModelProto,
    *,
    method: str = "blocks",
    bits: int = 4,
    group: int = 32,
    codes: Mapping[str, Codes] | None = None,
    ignore: Sequence[str] = (),
    accuracy_level: int = 4,
) -> list[str]:
    """Make the matrix products of a model with constants use codes; changes the model.

    Args:
        model: with its weights inside, float32.
        method: "blocks" or "int8".
        bits: of the codes of ``blocks`` that are rounded here, 4 or 8; ``int8`` always has 8.
        group: inputs that share a scale there: a power of two, 16 or more.
        codes: grids of matrices by the name of their initialiser, kept exactly; the others are rounded
            to the nearest code.
        ignore: patterns of names of initialisers to leave as they are.
        accuracy_level: of MatMulNBits: 4 rounds activations to int8, 1 computes in float32.

    Returns:
        Names of the matrices that are codes now.

    Raises:
        ValueError: an argument is out of range, a pattern or name fits nothing, or a matrix does not
            suit the method; the model is as it was then.
    """
    _checks.choice("method", method, METHODS)
    _checks.choice("bits", bits, (4, 8))
    _checks.choice("accuracy_level", accuracy_level, (1, 4))
    if _checks.whole("group", group, LEAST_GROUP) & (group - 1):
        raise ValueError(f"group must be a power of two, got {group}.")
    given = dict(codes or {})
    graph = model.graph
    constants = _constants(graph)
    chosen = _chosen(graph, constants, ignore)
    for name in given:
        if name not in chosen:
            raise ValueError(
                f"codes: {name!r} is no constant matrix to quantise; {_checks.suggestion(name, chosen)}"
            )
    made: dict[str, list[onnx.NodeProto]] = {}
    arrays: dict[str, onnx.TensorProto] = {}
    for name, nodes in chosen.items():
        grid = given.get(name)
        if grid is None:
            grid = _nearest(name, constants[name], bits, group if method == "blocks" else None)
        elif list(grid.shape) != list(constants[name].dims):
            raise ValueError(f"codes[{name!r}] must be {constants[name].dims}, got {grid.shape}.")
        if method == "blocks":
            product, tensors = _blocks(name, grid, accuracy_level)
        else:
            product, tensors = _int8(name, grid)
        arrays |= {one.name: one for one in tensors}
        made |= {node.output[0]: _with_bias(node, product) for node in nodes}
    rewritten = [new for node in graph.node for new in made.get(node.output[0], [node])]
    del graph.node[:]
    graph.node.extend(rewritten)
    _replace_constants(graph, arrays)
    if method == "blocks" and all(one.domain != CONTRIB for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return list(chosen)


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initialisers, and the values of Constant nodes, which some exporters write in their place."""
    found = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found |= {node.output[0]: one.t for one in node.attribute if one.name == "value"}
    return found


def _chosen(
    graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto], ignore: Sequence[str]
) -> dict[str, list[onnx.NodeProto]]:
    """The products with each constant matrix that is not ignored."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and _is_plain(node)):
            name = node.input[1]
            # a single row or column is a way to spell broadcasting or a mean
            if name in constants and len(dims := constants[name].dims) == 2 and min(dims) > 1:
                found.setdefault(name, []).append(node)
    for pattern in ignore:
        if not fnmatch.filter(found, pattern):
            raise ValueError(
                f"ignore: {pattern!r} fits no constant matrix; {_checks.suggestion(pattern, found)}"
            )
    kept = {
        name: nodes
        for name, nodes in found.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
    }
    if not kept:
        raise ValueError("the model has no product with a constant matrix that is not ignored.")
    return kept


def _is_plain(gemm: onnx.NodeProto) -> bool:
    """Whether a Gemm is x W + b."""
    plain = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0}
    values = {one.name: helper.get_attribute_value(one) for one in gemm.attribute}
    return all(values.get(name, value) == value for name, value in plain.items())


def _nearest(name: str, constant: onnx.TensorProto, bits: int, group: int | None) -> Codes:
    weight = numpy_helper.to_array(constant)
    if weight.dtype != np.float32:
        raise ValueError(f"{name} must be float32, got {weight.dtype}.")
    try:
        return rounded(weight, bits=bits if group else 8, group=group)
    except ValueError as error:
        raise ValueError(f"{name}: {error} Ignore it, or choose another group.") from error


def _with_bias(node: onnx.NodeProto, product: Product) -> list[onnx.NodeProto]:
    """Nodes in the place of a MatMul or Gemm."""
    out = node.output[0]
    if node.op_type == "MatMul" or len(node.input) < 3:
        return product(node.input[0], out)
    plain = f"{out}/product"
    return [*product(node.input[0], plain), helper.make_node("Add", [plain, node.input[2]], [out])]


def _blocks(name: str, grid: Codes, accuracy_level: int) -> tuple[Product, list[onnx.TensorProto]]:
    """MatMulNBits. Codes lie along inputs, [out, groups, bytes], of 4 bits the first one lowest."""
    group = min(grid.group & -grid.group, MOST_GROUP)
    if group < LEAST_GROUP:
        raise ValueError(
            f"{name}: MatMulNBits needs groups that a power of two of {LEAST_GROUP} or more divides, got"
            f" {grid.group}. Ignore it, or choose another group."
        )
    grid = grid.regrouped(group)
    bits = 4 if grid.bits <= 4 else 8
    inputs, outputs = grid.shape
    groups = len(grid.scale)
    codes = np.ascontiguousarray(grid.codes.T)
    zeros = grid.zero.T.astype(np.uint8)
    middle = bool((zeros == 1 << (bits - 1)).all())  # what the operator takes without zero points
    if bits == 4:
        codes = codes[:, ::2] | (codes[:, 1::2] << np.uint8(4))
        zeros = np.pad(zeros, ((0, 0), (0, groups % 2)))
        zeros = zeros[:, ::2] | (zeros[:, 1::2] << np.uint8(4))
    scale = np.ascontiguousarray(grid.scale.T, np.float32)
    arrays = {"codes": codes.reshape(outputs, groups, -1), "scale": scale.reshape(-1)}
    if not middle:
        arrays["zero"] = zeros.reshape(-1)
    tensors = [numpy_helper.from_array(array, f"{name}/{key}") for key, array in arrays.items()]

    def product(x: str, out: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node(
                "MatMulNBits",
                [x, *(one.name for one in tensors)],
                [out],
                name=out,
                domain=CONTRIB,
                K=inputs,
                N=outputs,
                bits=bits,
                block_size=group,
                accuracy_level=accuracy_level,
            )
        ]

    return product, tensors


def _int8(name: str, grid: Codes) -> tuple[Product, list[onnx.TensorProto]]:
    """DynamicQuantizeLinear, MatMulInteger, and the product of both scales."""
    if len(grid.scale) != 1:
        raise ValueError(
            f"{name}: int8 needs one scale a column, got groups of {grid.group}; method='blocks' takes"
            " them."
        )
    steps = grid.codes.astype(np.int16) - grid.zero.astype(np.int16)
    if steps.min() < -128 or steps.max() > 127:
        raise ValueError(
            f"{name}: int8 needs codes within -128..127 of zero; quantise symmetrically."
        )
    tensors = [
        numpy_helper.from_array((steps + 128).astype(np.uint8), f"{name}/codes"),
        numpy_helper.from_array(np.array(128, np.uint8), f"{name}/zero"),
        numpy_helper.from_array(grid.scale[0].astype(np.float32), f"{name}/scale"),
    ]
    codes, zero_w, scale_w = (one.name for one in tensors)

    def product(x: str, out: str) -> list[onnx.NodeProto]:
        rounded_x, scale, zero, total, wide, both = (
            f"{out}/{part}" for part in ("codes", "scale", "zero", "total", "wide", "both")
        )
        return [
            helper.make_node("DynamicQuantizeLinear", [x], [rounded_x, scale, zero]),
            helper.make_node("MatMulInteger", [rounded_x, codes, zero, zero_w], [total]),
            helper.make_node("Cast", [total], [wide], to=TensorProto.FLOAT),
            helper.make_node("Mul", [scale, scale_w], [both]),
            helper.make_node("Mul", [wide, both], [out], name=out),
        ]

    return product, tensors


def _replace_constants(graph: onnx.GraphProto, added: Mapping[str, onnx.TensorProto]) -> None:
    """Drop constants that nothing reads any more, and add the new ones."""
    read = {name for node in graph.node for name in node.input}
    read |= {one.name for one in graph.output}
    nodes = [one for one in graph.node if one.op_type != "Constant" or one.output[0] in read]
    del graph.node[:]
    graph.node.extend(nodes)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in read:
            del graph.initializer[index]
    graph.initializer.extend(added.values())
