"""Block formats against the dequantisation of the package gguf."""

import gguf
import numpy as np
import pytest

from oarlock.llm.loading.blocks import FORMATS, BlockArray


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: FORMATS[kind].name)
@pytest.mark.parametrize("num_rows, num_blocks", [(1, 1), (3, 2), (7, 5)])
def test_values_equal_those_of_the_gguf_package(kind, num_rows, num_blocks):
    form = FORMATS[kind]
    assert gguf.GGML_QUANT_SIZES[kind] == (form.num_values, form.num_bytes)
    assert gguf.GGMLQuantizationType(kind).name.lower() == form.name
    rng = np.random.default_rng(kind)
    rows = rng.integers(0, 256, [num_rows, num_blocks * form.num_bytes], dtype=np.uint8)
    blocks = rows.reshape(-1, form.num_bytes)
    # scales that are finite
    halves = {"q6_k": [208]}.get(form.name, [0, 2])
    for at in halves:
        if at == 0 or form.name in ("q4_1", "q5_1", "q4_k", "q5_k", "q6_k"):
            scale = rng.standard_normal([len(blocks), 1]).astype("<f2")
            blocks[:, at : at + 2] = scale.view(np.uint8)
    array = BlockArray(format=form, rows=rows)
    expected = gguf.dequantize(rows, gguf.GGMLQuantizationType(kind))
    assert array.shape == expected.shape == (num_rows, num_blocks * form.num_values)
    found = array.dequantize()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert (array.T.dequantize() == found.T).all() and array.T.shape == found.T.shape
    order = rng.permutation(num_rows)
    assert (array.take(order).dequantize() == found[order]).all()
    assert (array.T.take(slice(0, 1)).dequantize() == found[:1].T).all()


def test_large_matrices_are_decoded_piece_by_piece():
    form = FORMATS[8]
    values = np.random.default_rng(0).standard_normal([3, 1 << 19], np.float32)
    rows = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    array = BlockArray(format=form, rows=rows)
    np.testing.assert_allclose(array.dequantize(), values, atol=0.03)
    assert array.nbytes == values.size // 32 * 34
