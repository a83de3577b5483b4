"""RWKV-4 for ONNX Runtime: one step of its recurrence, by way of paddle2onnx."""

import tempfile
from pathlib import Path
from typing import Any

import onnx
import paddle
from paddle import nn
from paddle.static import InputSpec

from oarlock.core_opt.compress.export import onnx as onnx_files
from oarlock.core_opt.compress.export import onnx_weights
from oarlock.llm.models.rwkv4 import RWKV4, LayerState, RWKVCache

OPSET = 17


class Step(nn.Layer):
    """Logits of the next token and the state after one, from a token and the state before.

    Tokens are [B, 1]; the states of all layers are five tensors [layers, B, width].
    """

    def __init__(self, model: RWKV4):
        super().__init__()
        self.model = model

    def forward(self, tokens, attention_x, feed_forward_x, a, b, p):
        cache = RWKVCache()
        parts = (attention_x, feed_forward_x, a, b, p)
        layers = range(self.model.config.num_layers)
        cache.layers = [LayerState(*(part[i] for part in parts)) for i in layers]
        logits = self.model(tokens, cache)
        after = [[getattr(one, name) for one in cache.layers] for name in LayerState.__slots__]
        return (logits, *(paddle.stack(part) for part in after))


def graph(model: RWKV4) -> onnx.ModelProto:
    """The step as an ONNX graph, its weights inside as float32."""
    sizes = [model.config.num_layers, 1, model.config.hidden_size]
    inputs = [InputSpec([1, 1], "int64", "tokens")]
    inputs += [InputSpec(sizes, "float32", f"past_{name}") for name in LayerState.__slots__]
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/step"
        paddle.onnx.export(Step(model).eval(), prefix, input_spec=inputs, opset_version=OPSET)
        return onnx.load(f"{prefix}.onnx")


def write(step: onnx.ModelProto, path: Path, **options: Any) -> None:
    """Write a graph; with a `method`, its matrices as `onnx_weights.quantize` makes them."""
    if options:
        whole, step = step, onnx.ModelProto()
        step.CopyFrom(whole)
        onnx_weights.quantize(step, **options)
    onnx_files.write(step, path)
