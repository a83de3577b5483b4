"""Landlock: Linux takes rights away from a process, for good. Imports nothing of this package.

Source: Linux, Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
import struct
from collections.abc import Sequence

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same on all architectures
_NO_NEW_PRIVILEGES = 38
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _TRUNCATE_SINCE = 1 << 14, 3
_FILES_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # number of rights to files


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Version of Landlock that the kernel has; 0 for none."""
    if not hasattr(os, "uname") or os.uname().sysname != "Linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE, None, ctypes.c_size_t(0), 1)))


def restrict(*, readable: Sequence[str], writable: Sequence[str]) -> None:
    """Allow this process to read below some paths and to write below others, and nothing else.

    No file may be executed, and no TCP port bound or connected where the kernel can refuse it.

    Raises:
        OSError: the kernel refused.
    """
    libc, have = _libc(), version()
    all_files = (1 << _FILES_OF_VERSION.get(have, 16)) - 1
    attributes = struct.pack("=Q", all_files)
    if have >= 4:
        attributes += struct.pack("=Q", 0b11)
    if have >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract sockets, signals
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = libc.syscall(_CREATE, buffer, ctypes.c_size_t(len(attributes)), 0)
    _check(ruleset, "landlock_create_ruleset")
    for paths, rights in ((readable, READ_FILE | READ_DIR), (writable, all_files & ~EXECUTE)):
        for path in paths:
            if os.path.exists(path):
                _allow(libc, ruleset, path, rights, have)
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
    _check(libc.syscall(_RESTRICT, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int, have: int) -> None:
    if not os.path.isdir(path):
        rights &= EXECUTE | WRITE_FILE | READ_FILE | (_TRUNCATE if have >= _TRUNCATE_SINCE else 0)
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened), 12)
    _check(libc.syscall(_ADD, ruleset, 1, rule, 0), f"landlock_add_rule({path})")
    os.close(opened)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
