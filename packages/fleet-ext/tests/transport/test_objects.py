"""Plain values as bytes."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oarlock.fleet_ext.transport.objects import dumps, loads

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)  # fmt: skip


@given(PLAIN)
def test_values_come_back(value):
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    "dtype", ("float32", "int8", "uint64", "bool", "complex64", ml_dtypes.bfloat16)
)
@pytest.mark.parametrize("shape", ((), (0,), (2, 3)))
def test_arrays_come_back(dtype, shape):
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    found = loads(dumps({"x": array}))["x"]
    assert found.dtype == array.dtype and found.shape == shape
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("value", (object(), {1, 2}, np.array([None]), np.array(["text"])))
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(ValueError, match="cannot be sent"):
        dumps(value)


@given(st.binary(max_size=50) | st.sampled_from([
    {"__oarlock__": kind, **rest}
    for kind in ("array", "bytes", "tuple", "dict", "else", 3)
    for rest in ({}, {"data": "!", "dtype": "object", "shape": [2]}, {"data": "AAAA", "dtype": "(1,,2)f4", "shape": "x"},
                 {"items": 3}, {"items": [[[1], 2]]}, {"data": "AAAA", "dtype": "float32", "shape": [7]})
]))  # fmt: skip
def test_anything_else_is_a_value_error(given_):
    data = given_ if isinstance(given_, bytes) else json.dumps(given_).encode()
    try:
        loads(data)
    except ValueError:
        pass
