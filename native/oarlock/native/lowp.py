"""Products of matrices in low precision, for training and inference.

Operands are float32 or bfloat16 matrices as they lie in memory; they are rounded to the format
while they are packed. Formats with few bits have a scale for each row of op(a) and each column of
op(b), or for each block of those along the reduction: never along what is summed together.

>>> from oarlock.native import lowp
>>> lowp.matmul(x, w, y, format="int8")                    # y = x w
>>> lowp.matmul(dy, w, dx, format="int8", transpose_b=True)  # dx = dy w^T
>>> lowp.matmul(x, dy, dw, format="int8", transpose_a=True)  # dw = x^T dy
"""

from oarlock.native._lowp_matmul import matmul

__all__ = ["matmul"]
