"""Helpers of tests lie beside them."""

import sys
from pathlib import Path

for folder in (
    "agent",
    "checkpoints",
    "elastic",
    "paddle_cpu",
    "parameter_server",
    "serving",
    "transport",
):
    sys.path.insert(0, str(Path(__file__).parent / folder))
