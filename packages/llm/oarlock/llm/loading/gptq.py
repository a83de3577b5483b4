"""Folders of GPTQ: ``qweight``, ``qzeros``, ``scales`` and ``g_idx`` in place of a product's weight.

Inputs lie eight (four bits) or four to a word of ``qweight`` [I bits / 32, O]; zeros, of outputs, likewise in
``qzeros`` [G, O bits / 32], less one in the files' first version; scales are [G, O]. ``g_idx`` [I] says the group of each
input, which are in another order where activations were ordered ("desc_act").

Source: Frantar et al., arXiv 2210.17323; github.com/AutoGPTQ/AutoGPTQ, ``nn_modules/qlinear``.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.rounded import Rounded, array, check, misfit, unpacked
from oarlock.llm.loading.stored import Stored, Values

_PARTS = ("qweight", "qzeros", "scales", "g_idx")


def decoded(settings: Fields, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors, each product's weight [O, I] in place of its parts.

    Raises:
        ValueError: a setting is none of those read here, or parts of a product are missing or misshapen.
    """
    bits = settings.integer("bits")
    settings.must_be("bits", 4, 8, why="other codes are not read")
    settings.must_be("dynamic", {}, why="settings of single modules are not read")
    size = settings.integer("group_size", default=-1)
    if size != -1 and size < 1:
        raise ValueError(f"{settings.source}: group_size must be -1 or positive, got {size}.")
    version = settings.text("checkpoint_format", default="gptq")
    settings.must_be("checkpoint_format", "gptq", "gptq_v2", why="other layouts are not read")
    settings.must_be("pack_dtype", "int32", why="other layouts are not read")
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        module, _, last = name.rpartition(".")
        if last == "qweight":
            parts = {part: stored.get(f"{module}.{part}") for part in _PARTS}
            weight = _weight(module, parts, bits=bits, size=size, less=version == "gptq")
            found[weight.name] = weight
        elif last not in _PARTS or f"{module}.qweight" not in stored:
            found[name] = tensor
    return found


def _weight(
    module: str, parts: Mapping[str, Stored | None], *, bits: int, size: int, less: bool
) -> Stored:
    missing = [part for part in _PARTS[:3] if parts[part] is None]
    if missing:
        raise ValueError(f"{module} has qweight but no {' and '.join(missing)}.")
    codes, zeros, scales = (parts[part] for part in _PARTS[:3])
    index = parts["g_idx"]
    assert codes is not None and zeros is not None and scales is not None
    for one, kind in ((codes, "int32"), (zeros, "int32"), (scales, "float")):
        check(one, kind, 2)
    if index is not None:
        check(index, "int32", 1)
    num_in, num_out = codes.shape[0] * 32 // bits, codes.shape[1]
    G = -(-num_in // size) if size > 0 else 1
    wanted = {"qzeros": (G, num_out * bits // 32), "scales": (G, num_out), "g_idx": (num_in,)}
    shapes = {part: one.shape for part, one in parts.items() if one is not None}
    if num_out * bits % 32 or any(
        shapes.get(part, shape) != shape for part, shape in wanted.items()
    ):
        raise misfit(module, shapes)

    def read() -> Values:
        q = unpacked(array(codes, "int32", 2), bits)  # [I bits / 32, O, 32 / bits]
        z = unpacked(array(zeros, "int32", 2), bits).reshape(G, num_out).astype(np.int16)
        if less:
            z = (z + 1) & np.int16((1 << bits) - 1)
        return Rounded(
            codes=np.ascontiguousarray(q.transpose(1, 0, 2)).reshape(num_out, num_in),
            scales=np.ascontiguousarray(array(scales, "float", 2).T, np.float32),
            zeros=np.ascontiguousarray(z.T),
            groups=_groups(index, num_in, G, size),
        ).values()

    return Stored(
        name=f"{module}.weight",
        shape=(num_out, num_in),
        format=f"gptq of {bits} bits",
        num_bytes=sum(one.num_bytes for one in parts.values() if one is not None),
        read=read,
    )


def _groups(index: Stored | None, num_in: int, G: int, size: int) -> NDArray[np.int64] | None:
    """The group of each input, where they do not lie one after the other, all of a size."""
    plain = np.arange(num_in) // (size if size > 0 else num_in)
    groups = plain if index is None else array(index, "int32", 1).astype(np.int64)
    if groups.min() < 0 or groups.max() >= G:
        assert index is not None
        raise ValueError(f"{index.name} must hold groups in 0..{G - 1}, got {groups.min()} to {groups.max()}.")  # fmt: skip
    return None if num_in % G == 0 and (groups == plain).all() else groups
