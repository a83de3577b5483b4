"""Groups of GPUs, where there are none."""

import paddle
import pytest


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="Paddle has CUDA")
def test_it_is_refused_without_cuda():
    from oarlock.fleet_ext.transport.nccl import NcclGroup

    with pytest.raises(RuntimeError, match="built without CUDA"):
        NcclGroup()
