#!/usr/bin/env bash
# Writes the lock files anew: ./scripts/lock.sh [--upgrade]. Needs uv and access to PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/lock"

lock() { # lock NAME PYTHON [ARGUMENT...]
    uv pip compile -q --generate-hashes --no-annotate --no-header --python-version "$2" \
        "$1.in" -o "$1.lock" "${@:3}"
}

lock pants 3.9 "$@"
lock main 3.11 "$@"
lock pytest 3.11 --constraints main.lock "$@" # dev-venv.sh installs both into one environment
for tool in black ruff mypy docs; do lock "$tool" 3.11 "$@"; done
