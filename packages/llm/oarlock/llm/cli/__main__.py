"""``python -m oarlock.llm.cli``."""

from oarlock.llm.cli.main import main

main()
