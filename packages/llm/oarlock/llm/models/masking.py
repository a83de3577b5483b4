"""Which keys the attention of each layer sees, where that is not simply all keys before.

A layer's mask is for one length. A whole sequence of that length goes to the kernels of
``oarlock.native.attention``, which leave out what is hidden; the last T of S positions, as decoding
with a cache has them, get the same rows of the mask as a dense bias.
"""

from collections.abc import Sequence

import numpy as np
import paddle
from oarlock.native.masks import Mask

from oarlock.llm.models import common


def of_layers(masks: Mask | Sequence[Mask] | None, num_layers: int) -> tuple[Mask, ...] | None:
    """One mask a layer; see ``LanguageModel.attend``."""
    if masks is None:
        return None
    given = (masks,) * num_layers if isinstance(masks, Mask) else tuple(masks)
    if len(given) != num_layers:
        raise ValueError(
            f"masks must be one, or one for each of {num_layers} layers, got {len(given)}."
        )
    for layer, mask in enumerate(given):
        if not isinstance(mask, Mask) or not mask.causal:
            raise ValueError(
                f"masks[{layer}] must be a causal mask of oarlock.native.masks, got {mask!r}: a "
                "language model must not see later tokens."
            )
        if mask.bounds is not None and mask.bounds.shape[1] != 1:
            raise ValueError(
                f"masks[{layer}] must be one for all heads, has {mask.bounds.shape[1]}."
            )
    return given


def biases(
    masks: Sequence[Mask], T: int, S: int, dtype: paddle.dtype
) -> list[paddle.Tensor | Mask | None]:
    """The masks themselves for whole sequences, else dense biases [b, h, T, S]; equal ones once."""
    found: dict[int, paddle.Tensor | Mask | None] = {}
    for mask in masks:
        if id(mask) not in found:
            found[id(mask)] = _bias(mask, T, S, dtype)
    return [found[id(mask)] for mask in masks]


def _bias(mask: Mask, T: int, S: int, dtype: paddle.dtype) -> paddle.Tensor | Mask | None:
    length = S if mask.bounds is None else mask.bounds.shape[2]
    if S > length:
        raise ValueError(
            f"tokens reach position {S}, but a mask is for {length}: attend to a longer one."
        )
    if T == length:
        return mask
    if mask.bounds is None:
        return common.causal_bias(T, S, dtype)
    seen = mask.to_dense(length)[..., S - T : S, :S]
    return paddle.to_tensor(np.where(seen, 0.0, common.MASKED).astype(np.float32)).astype(dtype)
