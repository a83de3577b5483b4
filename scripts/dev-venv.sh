#!/usr/bin/env bash
# Makes .venv, where every package is installed in editable form, for quick work without Pants.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python3.11 -m venv .venv
.venv/bin/pip install -q --require-hashes -r scripts/lock/main.lock -r scripts/lock/pytest.lock
.venv/bin/pip install -q scikit-build-core==0.11.5 cmake==3.26.4 ninja==1.11.1
.venv/bin/pip install -q --no-deps --no-build-isolation -e native $(printf -- " -e %s" packages/* integration)
.venv/bin/pip check
