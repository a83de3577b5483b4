"""`paddle.distributed` on machines without GPUs: groups that do not race, all operations, fleet's parallel modes.

>>> from oarlock.fleet_ext.paddle_cpu import install
>>> install()  # before paddle.distributed.init_parallel_env() or fleet.init()
"""

from oarlock.fleet_ext.paddle_cpu.installing import Installation, install
from oarlock.fleet_ext.paddle_cpu.process_group import CpuProcessGroup

__all__ = ["CpuProcessGroup", "Installation", "install"]
