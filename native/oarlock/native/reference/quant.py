"""Products with weights in few bits, in NumPy: the formulas of ``oarlock.native.quant``, in float64."""

import numpy as np
from ml_dtypes import bfloat16

GROUP = 32


def quantize(weight, format):
    """Codes and scales of a weight [inputs, outputs], groups of 32 inputs; scales are float16."""
    groups = _groups(np.asarray(weight, np.float32))
    largest = np.abs(groups).max(1)
    if format == "int8":
        scales = (largest / np.float32(127)).astype(np.float16)
        low, high = -127, 127
    else:
        signed = np.take_along_axis(groups, np.abs(groups).argmax(1)[:, None], 1)[:, 0]
        scales = (signed / np.float32(-8)).astype(np.float16)
        low, high = -8, 7
    with np.errstate(divide="ignore"):
        inverse = np.where(scales != 0, np.float32(1) / scales.astype(np.float32), np.float32(0))
    codes = np.clip(np.rint(groups * inverse[:, None]), low, high).astype(np.int8)
    return codes, scales


def rounded(weight, format):
    """The weight [inputs, outputs] that a format holds, float32."""
    weight = np.asarray(weight, np.float32)
    if format == "fp32":
        return weight
    if format == "bf16":
        return weight.astype(bfloat16).astype(np.float32)
    codes, scales = quantize(weight, format)
    values = codes.astype(np.float32) * scales.astype(np.float32)[:, None]
    return values.reshape(-1, weight.shape[1])[: len(weight)]


def matmul(x, weight, format, bias=None):
    """Rows [rows, inputs] times a weight [inputs, outputs], both rounded as the format does."""
    x = np.asarray(x, np.float32)
    if format in ("int8", "int4"):
        x = rounded_rows(x)
    out = x.astype(np.float64) @ rounded(weight, format).astype(np.float64)
    return out if bias is None else out + bias


def rounded_rows(x):
    """Rows [rows, inputs] as products take them: int8 with a scale for 32 inputs; float64."""
    groups = _groups(np.asarray(x, np.float32).T)
    scales = np.abs(groups).max(1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(scales > 2.0**-107, np.rint(groups / scales), 0)
    return (codes * scales.astype(np.float64)).reshape(-1, len(x))[: x.shape[1]].T


def _groups(columns):
    """[inputs, n] -> [groups, 32, n], zero beyond the last input."""
    padded = np.zeros((-(-len(columns) // GROUP) * GROUP, columns.shape[1]), np.float32)
    padded[: len(columns)] = columns
    return padded.reshape(-1, GROUP, columns.shape[1])
