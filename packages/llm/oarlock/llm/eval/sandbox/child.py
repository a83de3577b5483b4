"""The confined process: gives up its rights, runs the program, writes what its calls returned.

A script of its own, started with ``-I``; it imports the standard library only. Order as JSON on standard
input; answer as JSON to the file descriptor in its argument.
"""

import ctypes
import importlib.util
import json
import os
import resource
import signal
import sys
import sysconfig

#: Events of `sys.addaudithook` that are refused: network, processes, other code.
REFUSED = (
    "socket.",
    "subprocess.",
    "os.fork",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.kill",
    "os.setxattr",
    "pty.",
    "ctypes.",
    "mmap.",
    "winreg.",
    "ftplib.",
    "smtplib.",
    "urllib.",
    "http.",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")


def limit(limits: dict) -> None:
    """Limits of the kernel on this process."""
    memory, size = limits["memory_mb"] << 20, limits["output_mb"] << 20
    for name, value in (
        ("AS", memory),
        ("FSIZE", size),
        ("NOFILE", 32),
        ("CORE", 0),
        ("NPROC", limits["processes"]),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    # the first is answered by `give_up`, the second kills
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"] + 1))


def give_up(answers: int) -> None:
    """Answer when the processor time is over."""

    def say(number: int, frame: object) -> None:
        os.write(answers, json.dumps({"status": "timeout", "detail": "processor time"}).encode())
        os._exit(0)

    signal.signal(signal.SIGXCPU, say)


def own_file_system(folder: str, size_mb: int) -> None:
    """A small file system in memory at the work folder, in this mount namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size_mb}m,nr_inodes=1000".encode()
    if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 2 | 4, options) != 0:
        raise OSError(ctypes.get_errno(), "mount of the work folder")
    os.chdir(folder)


def fence(work: str) -> None:
    """The audit hook."""

    def refuse(event: str, arguments: tuple) -> None:
        if event.startswith(REFUSED):
            raise PermissionError(f"{event} is not allowed here")
        if event == "open":
            path, mode, flags = arguments
            if isinstance(flags, int) and flags & WRITES and not inside(path):
                raise PermissionError(f"{path!r} may not be written")
        elif event in CHANGES and not inside(arguments[0]):
            raise PermissionError(f"{event} is not allowed outside the work folder")

    def inside(path: object) -> bool:
        return isinstance(path, (str, bytes)) and os.fsdecode(os.path.realpath(path)).startswith(
            work + os.sep
        )

    sys.addaudithook(refuse)


def readable() -> list[str]:
    """What the interpreter needs to read: itself, its library, shared libraries."""
    paths = {sys.base_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    paths |= {"/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo"}
    return sorted(paths | {"/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"})


def load(path: str):
    """A module by its file."""
    spec = importlib.util.spec_from_file_location("landlock", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def run(order: dict) -> dict:
    """Execute the program and make the calls."""
    names = {"__name__": "__main__"}
    try:
        exec(compile(order["code"], "program", "exec"), names)
    except MemoryError:
        return {"status": "memory", "detail": "out of memory"}
    except BaseException as error:  # SystemExit too: the program is foreign
        return {"status": "error", "detail": f"{type(error).__name__}: {error}"[:500]}
    entry = order["entry"]
    if entry is None:
        return {"status": "ok"}
    function = names.get(entry)
    if not callable(function):
        return {"status": "error", "detail": f"defines no function {entry!r}"}
    values, errors = [], []
    for arguments in order["calls"]:
        try:
            value = function(*arguments)
            json.dumps(value)
            values.append(value)
            errors.append("")
        except MemoryError:
            return {"status": "memory", "detail": "out of memory"}
        except BaseException as error:
            values.append(None)
            errors.append(f"{type(error).__name__}: {error}"[:200])
    return {"status": "ok", "values": values, "errors": errors}


def main() -> None:
    """Confine, run, answer."""
    answers = int(sys.argv[1])
    order = json.loads(sys.stdin.buffer.read())
    if order["namespaces"]:
        own_file_system(order["work"], 16)
    landlock = load(order["landlock_source"]) if order["landlock"] else None
    give_up(answers)
    limit(order["limits"])
    if landlock is not None:
        landlock.restrict(readable=readable(), writable=[order["work"]])
    fence(order["work"])
    answer = json.dumps(run(order)).encode()
    os.write(answers, answer)
    sys.stdout.flush()
    os._exit(0)  # threads and exit handlers of the program do not run on


if __name__ == "__main__":
    main()
