"""A LLaMA as an ONNX graph of standard operators, with a cache of keys and values.

Inputs are ``tokens`` [B, T] and, for each layer, ``past_key.<i>`` and ``past_value.<i>`` [B, G, P, K] of
the P positions before, none at first. Outputs are ``logits`` [B, T, V] and ``key.<i>``, ``value.<i>``
[B, G, P + T, K], the next call's past. Constants have the names of ``LlamaWeights``'s parts.

Shapes: B batch, T new positions, S = P + T positions of keys, D width, G key heads, R query heads of
each key head, K head size, V vocabulary.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .llama import LlamaSizes, LlamaWeights
from .codes import values_of

OPSET = 17
MASKED = -1e30


class Graph:
    """Nodes and constants under way; a method returns the name of its result."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: np.ndarray) -> str:
        """A constant; one name is one constant."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def shape(self, *dims: int) -> str:
        """A constant vector of int64."""
        return self.constant(f"int64{list(dims)}", np.array(dims, np.int64))

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes) -> str:
        """One node with one result."""
        out = out or f"{kind.lower()}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out


def build(weights: LlamaWeights) -> onnx.ModelProto:
    """The graph with all weights inside as float32, for ``llama.halves(weights)``; codes are spelt out."""
    sizes, graph = weights.sizes, Graph()
    weights = weights.untied()
    G, K = sizes.num_kv_heads, sizes.head_size
    positions, mask = _positions(graph)
    angles = _angles(graph, sizes, positions)
    table = graph.constant("embedding", values_of(weights.parts["embedding"]))
    x = graph.op("Gather", table, "tokens")
    floats, past = TensorProto.FLOAT, ("B", G, "P", K)
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", "T"])]
    outputs = [helper.make_tensor_value_info("logits", floats, ["B", "T", sizes.vocab_size])]
    for i in range(sizes.num_layers):
        part = f"blocks.{i}"
        normed = _norm(graph, weights, f"{part}.attention_norm", x)
        x = graph.op("Add", x, _attention(graph, weights, i, normed, angles, mask))
        normed = _norm(graph, weights, f"{part}.feed_forward_norm", x)
        gate = _product(graph, weights, f"{part}.gate", normed)
        gate = graph.op("Mul", gate, graph.op("Sigmoid", gate))
        hidden = graph.op("Mul", gate, _product(graph, weights, f"{part}.up", normed))
        x = graph.op("Add", x, _product(graph, weights, f"{part}.down", hidden))
        for kind in ("key", "value"):
            inputs.append(helper.make_tensor_value_info(f"past_{kind}.{i}", floats, past))
            outputs.append(helper.make_tensor_value_info(f"{kind}.{i}", floats, ("B", G, "S", K)))
    x = _norm(graph, weights, "norm", x)
    head = graph.constant("head", values_of(weights.parts["head"]))
    graph.op("MatMul", x, head, out="logits")
    proto = helper.make_graph(
        graph.nodes, "llama", inputs, outputs, initializer=list(graph.constants.values())
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=8, producer_name="oarlock")


def _positions(graph: Graph) -> tuple[str, str]:
    """Numbers of the new positions [T], and what is added to scores [T, S] to hide later keys."""
    one, zero = graph.shape(1), graph.constant("zero", np.array(0, np.int64))
    step = graph.constant("one", np.array(1, np.int64))
    past = graph.op("Squeeze", _size(graph, "past_key.0", 2))
    total = graph.op("Add", past, graph.op("Squeeze", _size(graph, "tokens", 1)))
    new = graph.op("Range", past, total, step)
    keys = graph.op("Range", zero, total, step)
    later = graph.op("Greater", keys, graph.op("Unsqueeze", new, one))
    hidden = graph.constant("hidden", np.array(MASKED, np.float32))
    seen = graph.constant("seen", np.array(0, np.float32))
    return new, graph.op("Where", later, hidden, seen)


def _size(graph: Graph, tensor: str, axis: int) -> str:
    return graph.op("Shape", tensor, start=axis, end=axis + 1)


def _angles(graph: Graph, sizes: LlamaSizes, positions: str) -> tuple[str, str]:
    """Cosines and sines of the new positions, [T, K]; both halves have the same angles."""
    frequencies = sizes.rope_theta ** (-np.arange(0, sizes.head_size, 2) / sizes.head_size)
    angles = np.outer(np.arange(sizes.max_length), np.tile(frequencies, 2))
    cos = graph.constant("cosines", np.cos(angles).astype(np.float32))
    sin = graph.constant("sines", np.sin(angles).astype(np.float32))
    return graph.op("Gather", cos, positions), graph.op("Gather", sin, positions)


def _norm(graph: Graph, weights: LlamaWeights, part: str, x: str) -> str:
    """x / sqrt(mean(x^2) + epsilon) * weight."""
    epsilon = graph.constant("epsilon", np.array(weights.sizes.norm_epsilon, np.float32))
    two = graph.constant("two", np.array(2, np.float32))
    mean = graph.op("ReduceMean", graph.op("Pow", x, two), axes=[-1])
    root = graph.op("Sqrt", graph.op("Add", mean, epsilon))
    gain = graph.constant(part, values_of(weights.parts[part]))
    return graph.op("Mul", graph.op("Div", x, root), gain)


def _product(graph: Graph, weights: LlamaWeights, part: str, x: str) -> str:
    return graph.op("MatMul", x, graph.constant(part, values_of(weights.parts[part])))


def _attention(
    graph: Graph,
    weights: LlamaWeights,
    layer: int,
    x: str,
    angles: tuple[str, str],
    mask: str,
) -> str:
    sizes, block = weights.sizes, f"blocks.{layer}"
    G, K = sizes.num_kv_heads, sizes.head_size
    R = sizes.num_heads // G
    query = _product(graph, weights, f"{block}.query", x)
    key = _product(graph, weights, f"{block}.key", x)
    value = _product(graph, weights, f"{block}.value", x)
    query = graph.op("Reshape", query, graph.shape(0, 0, G * R, K))
    query = _rotated(graph, graph.op("Transpose", query, perm=[0, 2, 1, 3]), angles)
    scale = graph.constant("scale", np.array(1 / math.sqrt(K), np.float32))
    query = graph.op("Mul", query, scale)  # [B, G R, T, K]
    heads = graph.shape(0, 0, G, K)
    key = graph.op("Transpose", graph.op("Reshape", key, heads), perm=[0, 2, 1, 3])
    key = _rotated(graph, key, angles)
    value = graph.op("Transpose", graph.op("Reshape", value, heads), perm=[0, 2, 1, 3])
    key = graph.op("Concat", f"past_key.{layer}", key, out=f"key.{layer}", axis=2)
    value = graph.op("Concat", f"past_value.{layer}", value, out=f"value.{layer}", axis=2)
    # [B, G, R T, K]: the query heads of a key head one below another
    query = graph.op("Reshape", query, graph.shape(0, G, -1, K))
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    T, S = _size(graph, x, 1), _size(graph, key, 2)
    split = graph.op("Concat", graph.shape(0, G, R), T, S, axis=0)
    scores = graph.op("Add", graph.op("Reshape", scores, split), mask)
    share = graph.op("Softmax", scores, axis=-1)
    joined = graph.op("Concat", graph.shape(0, G, -1), S, axis=0)
    mixed = graph.op("MatMul", graph.op("Reshape", share, joined), value)
    apart = graph.op("Concat", graph.shape(0, G * R), T, graph.shape(K), axis=0)
    mixed = graph.op("Transpose", graph.op("Reshape", mixed, apart), perm=[0, 2, 1, 3])
    mixed = graph.op("Reshape", mixed, graph.shape(0, 0, G * R * K))
    return _product(graph, weights, f"{block}.out", mixed)


def _rotated(graph: Graph, x: str, angles: tuple[str, str]) -> str:
    """Turn (i, i + K / 2) of each head [B, heads, T, K] by the angle of its position."""
    cos, sin = angles
    low, high = f"{x}/low", f"{x}/high"
    graph.nodes.append(helper.make_node("Split", [x], [low, high], axis=-1))
    turned = graph.op("Concat", graph.op("Neg", high), low, axis=-1)
    return graph.op("Add", graph.op("Mul", x, cos), graph.op("Mul", turned, sin))
