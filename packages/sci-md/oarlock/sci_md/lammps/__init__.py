"""`pair_style oarlock` for LAMMPS: build it, find it, run with it.

>>> from oarlock.sci_md import lammps
>>> print(lammps.input_lines("water.safetensors", ["O", "H"]))  # for an input of your own
>>> lammps.run(Path("in.water").read_text(), ranks=2)
"""

from oarlock.sci_md.lammps.building import LAMMPS_WHEEL, PluginUnavailable, build, plugin_path
from oarlock.sci_md.lammps.launch import LammpsFailed, environment, input_lines, run, start

__all__ = [
    "LAMMPS_WHEEL",
    "LammpsFailed",
    "PluginUnavailable",
    "build",
    "environment",
    "input_lines",
    "plugin_path",
    "run",
    "start",
]
