"""Folders of compressed-tensors, as llm-compressor writes them: weights of 4 or 8 bits.

- "pack-quantized": ``weight_packed`` [O, I bits / 32], inputs lowest first, of q + 2^(bits-1); ``weight_shape``;
  zeros, of outputs, likewise in ``weight_zero_point`` [O bits / 32, G].
- "int-quantized" and "naive-quantized": ``weight`` int8 [O, I]; zeros int8 [O, G].

Scales, ``weight_scale``, are [O, G], [O, 1] or one for all; ``weight_g_idx`` [I] says the group of each input where
activations were ordered.

Source: github.com/vllm-project/compressed-tensors, ``compressors`` and ``quantization``.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.rounded import Rounded, array, check, misfit, unpacked
from oarlock.llm.loading.stored import Stored, Values

FORMATS = ("pack-quantized", "int-quantized", "naive-quantized")
_PARTS = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")


def decoded(settings: Fields, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors, each product's weight [O, I] in place of its parts.

    Raises:
        ValueError: a setting is none of those read here, or parts of a product are missing or misshapen.
    """
    bits = _bits(settings)
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        module, _, last = name.rpartition(".")
        scaled = f"{module}.weight_scale" in stored
        if last == "weight_packed" or (last == "weight" and scaled):
            found[f"{module}.weight"] = _weight(module, stored, bits)
        elif last not in _PARTS or not scaled:
            found[name] = tensor
    return found


def _bits(settings: Fields) -> int:
    """Bits of all weights, after everything else was found fit."""
    groups = settings.mapping("config_groups")
    settings.must_be("kv_cache_scheme", {}, why="the cache's own formats are to be chosen here")
    settings.must_be("sparsity_config", {}, {"format": "dense"}, why="sparse weights are not read")
    found = set()
    for name, group in groups.items():
        source = f"{settings.source}, config_groups, {name}"
        if not isinstance(group, dict):
            raise ValueError(f"{source} must be an object, got {group!r}.")
        fields = Fields(group, source)
        for other in ("input_activations", "output_activations"):
            if other in fields:
                raise ValueError(
                    f"{source}: {other} must be absent: only weights are read rounded; the engine rounds what it "
                    "multiplies by its own rule."
                )
        for one in (settings, fields):
            if "format" in one and one.text("format") not in (*FORMATS, "mixed-precision"):
                raise ValueError(
                    f"{one.source}: format must be one of {', '.join(FORMATS)}, got {one.text('format')!r}."
                )
        weights = Fields(fields.mapping("weights"), f"{source}, weights")
        weights.must_be("type", "int", why="other numbers are not read")
        weights.must_be("num_bits", 4, 8, why="other codes are not read")
        weights.must_be("strategy", "group", "channel", "tensor", why="others are not read")
        found.add(weights.integer("num_bits"))
    if len(found) != 1:
        raise ValueError(f"{settings.source}: config_groups must have weights of one size, got {sorted(found)}.")  # fmt: skip
    return found.pop()


def _weight(module: str, stored: Mapping[str, Stored], bits: int) -> Stored:
    parts = {part: stored.get(f"{module}.{part}") for part in ("weight", *_PARTS)}
    packed, scales = parts["weight_packed"], parts["weight_scale"]
    if scales is None or (packed is not None and parts["weight_shape"] is None):
        lack = "weight_scale" if scales is None else "weight_shape"
        raise ValueError(f"{module} has a rounded weight but no {lack}.")
    if packed is not None:
        check(packed, "int32", 2)
        num_out, num_in = _shape(parts["weight_shape"])
        fits = packed.shape == (num_out, -(-num_in * bits // 32))
    else:
        plain = parts["weight"]
        assert plain is not None
        check(plain, "int8", 2)
        (num_out, num_in), fits = plain.shape, True
    check(scales, "float", len(scales.shape))
    rows, G = scales.shape if len(scales.shape) == 2 else (1, 1)
    if math.prod(scales.shape) != rows * G or rows not in (1, num_out) or not 1 <= G <= num_in:
        fits = False
    zeros, index = parts["weight_zero_point"], parts["weight_g_idx"]
    if zeros is not None and fits:
        kind = "int32" if packed is not None and zeros.format == "int32" else "int8"
        check(zeros, kind, len(zeros.shape))
        wanted = (-(-num_out * bits // 32), G) if kind == "int32" else scales.shape
        fits = zeros.shape == wanted
    if index is not None and fits:
        check(index, "int32", 1)
        fits = index.shape == (num_in,)
    if not fits or (index is None and num_in % G):
        raise misfit(module, {part: one.shape for part, one in parts.items() if one is not None})

    def read() -> Values:
        return Rounded(
            codes=_codes(parts, bits, num_in),
            scales=np.array(np.broadcast_to(_rows(scales, rows, G), (num_out, G)), np.float32),
            zeros=_zeros(zeros, bits, num_out, rows, G),
            groups=_groups(index, num_in, G),
        ).values()

    return Stored(
        name=f"{module}.weight",
        shape=(num_out, num_in),
        format=f"compressed-tensors of {bits} bits",
        num_bytes=sum(one.num_bytes for one in parts.values() if one is not None),
        read=read,
    )


def _shape(stored: Stored | None) -> tuple[int, int]:
    assert stored is not None
    if stored.shape != (2,) or stored.format not in ("int32", "int64"):
        raise ValueError(f"{stored.name} must be two integers, is {stored.format} of shape {stored.shape}.")  # fmt: skip
    num_out, num_in = map(int, np.asarray(stored.read()))
    if num_out < 1 or num_in < 1:
        raise ValueError(f"{stored.name} must be positive, got {(num_out, num_in)}.")
    return num_out, num_in


def _codes(parts: Mapping[str, Stored | None], bits: int, num_in: int) -> NDArray[np.int8]:
    packed, plain = parts["weight_packed"], parts["weight"]
    if packed is None:
        assert plain is not None
        return array(plain, "int8", 2)
    words = array(packed, "int32", 2)
    return _signed(unpacked(words, bits).reshape(len(words), -1)[:, :num_in], bits)


def _signed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    return (codes - np.uint8(1 << (bits - 1))).view(np.int8)


def _rows(stored: Stored, rows: int, G: int) -> NDArray[Any]:
    return np.asarray(stored.read()).reshape(rows, G)


def _zeros(zeros: Stored | None, bits: int, num_out: int, rows: int, G: int) -> NDArray[np.int16]:
    if zeros is None:
        return np.zeros((num_out, G), np.int16)
    if zeros.format == "int8":
        return np.array(np.broadcast_to(_rows(zeros, rows, G), (num_out, G)), np.int16)
    words = array(zeros, "int32", 2)  # [O bits / 32, G]
    by_output = unpacked(words, bits).transpose(0, 2, 1).reshape(-1, G)[:num_out]
    return _signed(np.ascontiguousarray(by_output), bits).astype(np.int16)


def _groups(index: Stored | None, num_in: int, G: int) -> NDArray[np.int64] | None:
    if index is None:
        return None
    groups = array(index, "int32", 1).astype(np.int64)
    if (groups == -1).all():  # in the order of the inputs
        groups = np.arange(num_in) // max(num_in // G, 1)
    if groups.min() < 0 or groups.max() >= G:
        raise ValueError(f"{index.name} must hold groups in 0..{G - 1}, got {groups.min()} to {groups.max()}.")  # fmt: skip
    return (
        None if num_in % G == 0 and (groups == np.arange(num_in) // (num_in // G)).all() else groups
    )
