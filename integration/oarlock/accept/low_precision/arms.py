"""The ways of computing a model that criterion 1.2 compares; each is put into a model before training."""

from functools import partial
from typing import Any

import paddle

from oarlock.core_opt import precision
from oarlock.llm.models import LanguageModel

Batch = tuple[paddle.Tensor, paddle.Tensor]


def loss(model: Any, batch: Batch) -> paddle.Tensor:
    """Mean loss of a language model on tokens and targets [batch, context]."""
    return model.loss(*batch)


def float32(model: LanguageModel) -> None:
    """Paddle's own products, with the gradient of biases as a product too: the fastest in float32."""
    for _, layer in precision.linears(model):
        if layer.bias is not None:
            vars(layer)["forward"] = partial(_exact, layer)


def stock_amp(model: LanguageModel) -> None:
    """`paddle.amp.auto_cast` of level O1 in bfloat16 around the loss, as its manual says."""
    _within(model, partial(paddle.amp.auto_cast, level="O1", dtype="bfloat16"))


def uniform_bfloat16(model: LanguageModel) -> None:
    """Our autocast of level O1: Paddle's lists, and kernels that compute in bfloat16 on a CPU."""
    _within(model, partial(precision.autocast, level="O1", dtype="bfloat16"))


def _exact(layer: paddle.nn.Linear, x: paddle.Tensor) -> paddle.Tensor:
    return precision.linear(x, layer.weight, layer.bias)


def _within(model: LanguageModel, context: Any) -> None:
    plain = model.loss

    def inside(*batch: paddle.Tensor) -> paddle.Tensor:
        with context():
            return plain(*batch)

    object.__setattr__(model, "loss", inside)
