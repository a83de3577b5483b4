"""Makes the tables of READMEs and docs from the evidence; `--check` only compares."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "integration"))

from oarlock.accept import tables  # noqa: E402

if __name__ == "__main__":
    sys.exit(tables.main(ROOT))
