"""Paddle's tensors travel without a copy."""

import numpy as np
import paddle
import pytest
from oarlock.fleet_ext.transport.arrays import view_of

from ranks import together, well


@pytest.mark.parametrize("dtype", ("float32", "float64", "float16", "bfloat16", "int64", "bool"))
def test_a_view_shares_the_tensors_memory(dtype):
    tensor = paddle.ones([3, 4]).astype(dtype)
    view = view_of(tensor)
    assert view.shape == (3, 4) and view.dtype.name == dtype
    view[1, 2] = 0
    assert tensor.astype("float32").sum().item() == 11.0
    del tensor
    assert view.astype(np.float32).sum() == 11.0


def test_tensors_are_reduced_in_place():
    def run(group):
        tensor = paddle.full([70, 30], group.rank + 1.0, "bfloat16")
        assert group.all_reduce(tensor, "mean").wait() is tensor
        return tensor.astype("float32").numpy()

    for one in well(together(3, run)):
        assert (one == 2.0).all()


def test_what_cannot_be_seen_is_refused():
    with pytest.raises(ValueError, match="contiguous"):
        view_of(paddle.ones([3, 4]).T)
    with pytest.raises(ValueError, match="gradient must be a NumPy array or a Paddle tensor"):
        view_of([1.0], "gradient")
    fixed = np.ones(3)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        view_of(fixed)
