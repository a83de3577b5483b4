"""``python -m oarlock.sci_md.deepmd train input.json``: `dp --pd` with its backend mended."""

import logging
import sys

from oarlock.sci_md.deepmd.running import run

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    run(sys.argv[1:])
