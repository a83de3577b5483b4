#!/usr/bin/env bash
# Cross-compiles the kernels for 64-bit Arm and runs their self-check under QEMU.
#
# Where the cross compiler or QEMU is missing it says so and succeeds; in CI it installs them first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

compiler=aarch64-linux-gnu-g++
missing() {
    local tool
    for tool in "$compiler" qemu-aarch64; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
}

if [ -n "$(missing)" ] && [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $(missing | tr '\n' ' ')"
    { apt-get update -qq && apt-get install -y -qq g++-aarch64-linux-gnu qemu-user; } >/dev/null ||
        echo "the installation failed"
fi
if [ -n "$(missing)" ]; then
    echo "NOT RUN: kernels on 64-bit Arm: $(missing | tr '\n' ' ')is not here" \
        "(Debian: apt install g++-aarch64-linux-gnu qemu-user)"
    exit 0
fi

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for folder in ../.venv/bin "${VIRTUAL_ENV:-/nonexistent}/bin"; do
    if [ -x "$folder/cmake" ]; then PATH=$(cd "$folder" && pwd):$PATH; fi
done
if ! command -v cmake >/dev/null; then
    python3.11 -m venv "$build/venv"
    "$build/venv/bin/pip" install -q cmake==3.26.4
    PATH=$build/venv/bin:$PATH
fi

cmake -S . -B "$build/cmake" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release \
    -DOARLOCK_SELFCHECK=ON -DOARLOCK_PHI=OFF -DOARLOCK_CUDA=OFF >"$build/log" ||
    { cat "$build/log"; exit 1; }
cmake --build "$build/cmake" -j 2 >"$build/log" 2>&1 || { cat "$build/log"; exit 1; }
sysroot=$(cd "$(dirname "$("$compiler" -print-file-name=libc.so.6)")/.." && pwd)
timeout 600 qemu-aarch64 -L "$sysroot" "$build/cmake/oarlock_selfcheck"
