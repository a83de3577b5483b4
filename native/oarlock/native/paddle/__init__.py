"""CPU Paddle made fast, and Paddle's tensors shared with NumPy.

>>> from oarlock.native.paddle import accelerate
>>> print(accelerate())  # MKL's code path, malloc, threads

>>> from oarlock.native.paddle import kernels
>>> print(kernels.load())  # bfloat16 for Paddle's own operators

>>> from oarlock.native.paddle import as_numpy, from_numpy
>>> as_numpy(tensor)[:] = 0  # the tensor's own memory
"""

from oarlock.native.paddle.acceleration import accelerate, openmp_threads
from oarlock.native.paddle.bridge import as_numpy, from_numpy
from oarlock.native.paddle.report import Change, Report

__all__ = ["Change", "Report", "accelerate", "as_numpy", "from_numpy", "openmp_threads"]
