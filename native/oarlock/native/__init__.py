"""Fast kernels for NumPy arrays, Paddle tensors and anything with ``__dlpack__``.

>>> from oarlock import native
>>> print(native.info())  # processor, code path, threads, build
"""

from oarlock.native._info import Info, forced_path, info
from oarlock.native._library import LibraryUnavailable
from oarlock.native.threads import physical_cores

__all__ = ["Info", "LibraryUnavailable", "forced_path", "info", "physical_cores"]
