"""``python -m oarlock.sci_md.lammps``: see `commands`."""

from oarlock.sci_md.lammps.commands import app

app(prog_name="python -m oarlock.sci_md.lammps")
