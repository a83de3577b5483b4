#!/usr/bin/env bash
# Builds the documentation into site/ (or the folder given): scripts/docs.sh [FOLDER]
# mkdocs lives in an environment of its own, made once for each lock file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

site=$(realpath -m "${1:-site}")
lock=scripts/lock/docs.lock
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oarlock
env=$cache/docs-$(sha256sum "$lock" | cut -c1-12)
mkdir -p "$cache"

(
    flock 9
    if [ ! -e "$env/complete" ]; then
        rm -rf "$env"
        python3.11 -m venv "$env"
        "$env/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$lock"
        touch "$env/complete"
    fi
) 9>"$cache/docs.lock"

NO_MKDOCS_2_WARNING=1 "$env/bin/mkdocs" build --strict --clean --site-dir "$site"
"$env/bin/python" scripts/check_site.py "$site"
