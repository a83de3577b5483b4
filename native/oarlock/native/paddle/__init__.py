"""CPU Paddle made fast, and Paddle's tensors shared with NumPy.

>>> from oarlock.native.paddle import accelerate
>>> print(accelerate())
"""

from oarlock.native.paddle.acceleration import accelerate, openmp_threads
from oarlock.native.paddle.report import Change, Report

__all__ = ["Change", "Report", "accelerate", "openmp_threads"]
