"""``python -m oarlock.sci_md.cli``."""

from oarlock.sci_md.cli.main import main

main()
