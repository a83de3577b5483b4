"""Runs Python that nobody has read, in a process that can do little.

>>> from oarlock.llm.eval import sandbox
>>> outcome = sandbox.call("def double(x):\n    return 2 * x", "double", [[3], [4]])
>>> outcome.values
[6, 8]

What confines the process, where the kernel has it (`isolation` says):

- namespaces of its own (network without devices, process numbers, mounts), by ``unshare``;
- Landlock: nothing may be written outside a temporary folder, only the interpreter and its libraries may
  be read, no file may be executed, no TCP port used;
- limits on CPU time, memory, file size, open files and processes, a limit on wall time, after which
  the whole group is killed, and a small file system of its own for what it writes;
- an audit hook that refuses sockets, processes and ctypes. It alone is a fence, not a wall.

Without namespaces and Landlock, code is only run where ``allow_weak`` says so.
"""

from oarlock.llm.eval.sandbox.runner import (
    Isolation,
    Limits,
    Outcome,
    SandboxUnavailable,
    call,
    isolation,
)

__all__ = ["Isolation", "Limits", "Outcome", "SandboxUnavailable", "call", "isolation"]
