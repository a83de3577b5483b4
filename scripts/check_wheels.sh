#!/usr/bin/env bash
# Installs each wheel of a folder alone (with what it requires) in a fresh environment, and imports it.
set -euo pipefail
wheels=$(cd "${1:?usage: check_wheels.sh FOLDER_OF_WHEELS}" && pwd)
lock=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/lock/main.lock
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Constraints cannot carry hashes: the versions of the lock file, without them.
sed -n 's/^\([A-Za-z0-9._-]*==[^ \\]*\).*/\1/p' "$lock" >"$scratch/constraints.txt"

for wheel in "$wheels"/oarlock_*.whl; do
    name=$(basename "$wheel" | sed 's/-.*//')
    module=oarlock.${name#oarlock_}
    python3.11 -m venv "$scratch/$name"
    "$scratch/$name/bin/pip" install -q --disable-pip-version-check --no-compile \
        --find-links "$wheels" -c "$scratch/constraints.txt" "$wheel"
    (cd "$scratch" && "$name/bin/python" -c "
import importlib, sys
module = importlib.import_module('$module')
assert 'site-packages' in module.__file__, module.__file__
print('$(basename "$wheel"): imports', module.__name__)")
    "$scratch/$name/bin/pip" check --disable-pip-version-check
    rm -rf "${scratch:?}/$name"
done
