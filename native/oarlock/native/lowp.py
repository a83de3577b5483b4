"""Products of matrices in low precision, for training and inference.

Operands are float32 or bfloat16 matrices as they lie in memory: Paddle's, NumPy's or anything with
``__dlpack__``. They are rounded to a format while they are packed, transposed at no further pass.

========== ======================================== =============================================
format     numbers                                  product
========== ======================================== =============================================
fp32       as they are                              float32
bf16       8 bits of precision, range of float32    exact, summed in float32
fp16       11 bits, up to 65504, then Inf           exact, summed in float32
fp8_e4m3   4 bits, up to 448, no Inf; scaled        exact, summed in float32
fp8_e5m2   3 bits, up to 57344; scaled              exact, summed in float32
int8       -127 to 127; scaled                      exact, summed in int32
int16      -5792 to 5792; scaled                    exact, sums of 64 in int32, then in float32
========== ======================================== =============================================

*Scaled* formats have a float32 scale, ``largest magnitude / largest number``, for each row of op(a)
and each column of op(b), or for each ``block`` of elements of those: never one along what is summed
together. A gradient of a linear layer sums along another axis than its forward pass, so a tensor that
is in both has two sets of scales.

- **Same bits** for any number of threads; of int8 and int16 on every code path too. Sums in float32
  go along the reduction one by one, fused where the path has fused multiply-add, so floating formats
  but fp32 and bfloat16's products below 2^-126 have the same bits everywhere as well; only bf16 on
  AVX512-BF16 sums pairs, from high to low, and flushes subnormal numbers to zero.
- **NaN and Inf** in an operand reach ``out``: of scaled formats they make the scale NaN, and with it
  all of their row or column of ``out``. Without scales they stay where they are.
- **Small numbers.** Rows below 2^-100 are scaled as if their largest magnitude were 2^-100.
- fp8, fp16 and, without AVX512-BF16, bf16 are emulated: their rounding is exact, their speed float32's.
- **On a GPU** tensor cores multiply all formats but fp32. Rounding and products in int8, int16 and fp32 are
  written to have the CPU's bits; other sums have one order, but not its. Not run on a GPU yet.

>>> from oarlock.native import lowp
>>> lowp.matmul(x, w, y, format="int8")                      # y = x w
>>> lowp.matmul(dy, w, dx, format="int8", transpose_b=True)  # dx = dy w^T
>>> lowp.matmul(x, dy, dw, format="int8", transpose_a=True)  # dw = x^T dy
"""

from oarlock.native._lowp_codes import Quantized, cast, dequantize, quantize
from oarlock.native._lowp_hadamard import hadamard
from oarlock.native._lowp_matmul import matmul

__all__ = ["Quantized", "cast", "dequantize", "hadamard", "matmul", "quantize"]
