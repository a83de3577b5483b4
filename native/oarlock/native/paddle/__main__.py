"""``python -m oarlock.native.paddle``: apply ``accelerate`` and check a product of matrices."""

import sys

import numpy as np
import paddle

from oarlock.native.paddle import accelerate, kernels, mkl

SIZE = 512
# |fl(a.b) - a.b| <= K u sum|a_k b_k| with u = 2^-24; sums of random signs stay far below it.
BOUND = SIZE * 2.0**-24


def sgemm_error(size: int = SIZE) -> float:
    """Largest |C - AB| / (|A||B|) of Paddle's float32 product against NumPy's float64."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    c = paddle.matmul(paddle.to_tensor(a), paddle.to_tensor(b)).numpy()
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.max(np.abs(c - a @ b) / (np.abs(a) @ np.abs(b))))


def main() -> int:
    report = accelerate()
    print(report)
    error = sgemm_error()
    right = error <= BOUND
    library = mkl.library()
    path = "no MKL" if library is None else mkl.describe(mkl.active_path(library))
    print(
        f"[{'ok ' if right else 'NOT'}] sgemm {SIZE}x{SIZE} on {path}: relative error {error:.1e}"
    )
    print(kernels.status())
    return 0 if report.ok and right else 1


if __name__ == "__main__":
    sys.exit(main())
