"""Feed-forward networks whose activations are mostly zero, and the work saved by that."""

import numpy as np
import paddle
import paddle.nn.functional as F
from oarlock.native.paddle import sparse as kernels
from paddle import nn

from .. import _checks
from ._base import PATHS


class ReLU2FFN(nn.Layer):
    r"""Two layers with a squared ReLU between them, which skip the neurons that are not active.

    .. math:: y = \max(x W_1 + b_1 - t, 0)^2 \, W_2 + b_2

    The second product and all gradients cost what is active only; the first product is dense. Results
    are those of dense layers. While more than ``switch`` of the neurons are active, as when training
    begins, the dense products are faster and are taken. With ``target`` the threshold :math:`t` follows
    the share of active neurons while training, :math:`t \leftarrow t + \mathrm{rate} \cdot (\mathrm{share} -
    \mathrm{target}) \cdot \mathrm{rms}(z)`, and so trades a little of the function for a known cost.

    Args:
        width: D, of input and output.
        hidden: F, neurons.
        bias: whether both layers have one.
        target: share of active neurons to steer to, in (0, 1); None leaves the threshold at 0.
        rate: how fast, > 0.
        switch: share of active neurons, measured in the pass before, up to which zeros are skipped;
            in [0, 1], 1 for always. ``crossover`` measures it.
        path: ``"native"`` kernels (float32 on the CPU), ``"paddle"`` operators, which skip nothing,
            None for the kernels wherever they can.

    Raises:
        ValueError: an argument is not as above.

    Source: So et al. (Primer), 2109.08668, for the squared ReLU; 2503.16672 for its sparsity.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        bias: bool = True,
        target: float | None = None,
        rate: float = 0.1,
        switch: float = 0.25,
        path: str | None = None,
    ):
        super().__init__()
        if target is not None:
            target = _checks.real("target", target, 0.0, 1.0, open_low=True, open_high=True)
        self.target = target
        self.rate = _checks.real("rate", rate, 0.0, float("inf"), open_low=True, open_high=True)
        self.switch = _checks.real("switch", switch, 0.0, 1.0)
        self.path = _checks.choice("path", path, PATHS)
        with_bias = None if _checks.flag("bias", bias) else False
        self.fc_in = nn.Linear(
            _checks.whole("width", width, 1),
            _checks.whole("hidden", hidden, 1),
            bias_attr=with_bias,
        )
        self.fc_out = nn.Linear(hidden, width, bias_attr=with_bias)
        self.register_buffer("threshold", paddle.zeros([1]))
        #: share of active neurons in the last pass; None before the first
        self.active: float | None = None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        threshold = 0.0 if self.target is None else self.threshold.item()
        if self._is_native(x) and (self.switch == 1 or self._is_sparse()):
            y, share, scale = kernels.relu2_ffn_measured(
                x, self.fc_in.weight, self.fc_out.weight, self.fc_in.bias, threshold=threshold
            )
        else:
            z = self.fc_in(x)
            active = F.relu(z - threshold)
            y = paddle.matmul(paddle.square(active), self.fc_out.weight)
            share = float(np.count_nonzero(active.numpy())) / max(active.size, 1)
            scale = 0.0
            if self.target is not None:
                scale = paddle.sqrt(paddle.mean(paddle.square(z.detach()))).numpy().item()
        self.active = share
        if self.target is not None and self.training:
            change = self.rate * (share - self.target) * scale
            self.threshold.set_value(self.threshold + change)
        return y if self.fc_out.bias is None else y + self.fc_out.bias

    def _is_sparse(self) -> bool:
        return self.active is not None and self.active <= self.switch

    def _is_native(self, x: paddle.Tensor) -> bool:
        weight = self.fc_in.weight
        able = (
            x.dtype == weight.dtype == paddle.float32
            and x.place.is_cpu_place()
            and weight.place.is_cpu_place()
        )
        if self.path == "native" and not able:
            raise ValueError(
                f'path="native" takes float32 on the CPU, got {x.dtype} on {x.place}; use path=None.'
            )
        return able and self.path != "paddle"
