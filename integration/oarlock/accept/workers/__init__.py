"""Child processes that serve the functions of a module: for settings that hold from start-up on,
for memory of their own, and for libraries of another environment.

>>> with Worker.start("oarlock.accept.topics.workers.paddle_lm", env={"OMP_NUM_THREADS": "2"}) as worker:
...     worker.call("build", accelerated=True)
...     worker.call("step")
{'wall_s': 0.21, 'cpu_s': 0.4}
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from oarlock.accept.spawn import search_path, tail
from oarlock.accept.workers import serve

_SERVE = Path(serve.__file__)
#: Variables that tell an interpreter where to import from; not for another environment.
_PLACES = ("PYTHONPATH", "PYTHONHOME", "PEX_EXTRA_SYS_PATH", "PEX_PATH", "VIRTUAL_ENV")
_PATIENCE_S = 5.0


class WorkerFailed(RuntimeError):
    """A call raised an exception in the worker; `traceback` is the text of it."""

    def __init__(self, message: str, traceback: str = ""):
        super().__init__(f"{message}\n{traceback}" if traceback else message)
        self.traceback = traceback


class WorkerDied(WorkerFailed):
    """The worker's process ended without an answer."""


class Worker:
    """A running worker; made by `Worker.start`, ended by `close` or at the end of `with`."""

    def __init__(self, what: str, process: subprocess.Popen[str], errors: IO[bytes]):
        self.what = what
        self._process = process
        self._errors = errors

    @classmethod
    def start(
        cls,
        module: str | Path,
        *,
        env: Mapping[str, str] | None = None,
        python: str | Path | None = None,
    ) -> Self:
        """Starts an interpreter and imports the module there.

        Args:
            module: a module's name, or the path of a `.py` file.
            env: environment variables beside those of this process.
            python: another interpreter, such as `peers.python("torch")`; it imports only what its own
                environment has, and `module` must be a file.
        Raises:
            WorkerFailed: the module cannot be imported. ValueError: a name with another interpreter.
        """
        what = os.path.abspath(module) if str(module).endswith(".py") else str(module)
        if python is not None and not what.endswith(".py"):
            raise ValueError(f"module must be a .py file for another interpreter, got {module!r}")
        environment = dict(os.environ) | dict(env or {})
        if python is not None:
            for name in _PLACES:
                if name not in (env or {}):
                    environment.pop(name, None)
        errors = tempfile.NamedTemporaryFile(prefix="oarlock-worker-")  # noqa: SIM115
        process = subprocess.Popen(
            [str(python or sys.executable), str(_SERVE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            encoding="utf-8",
        )
        worker = cls(what, process, errors)
        try:
            worker._ask({"load": what, "path": search_path() if python is None else None})
        except BaseException:
            worker.kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, function: str, /, **arguments: Any) -> Any:
        """Calls a public function of the module; arguments and value are plain JSON.

        Raises:
            WorkerFailed: it raised an exception, or its value is not JSON.
            WorkerDied: its process ended.
        """
        return self._ask({"call": function, "arguments": arguments})

    def _ask(self, request: dict[str, Any]) -> Any:
        text = json.dumps(request)
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("a worker has pipes")
        if self._process.stdin.closed:
            raise WorkerDied(f"worker {self.what} was closed")
        try:
            self._process.stdin.write(text + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._death(request)
        answer = json.loads(line)
        if "error" in answer:
            asked = request.get("call", "import")
            message = f"worker {self.what}, {asked}: {answer['error']}: {answer['message']}"
            raise WorkerFailed(message, answer["traceback"])
        return answer["value"]

    def _death(self, request: dict[str, Any]) -> WorkerDied:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        last = tail(Path(self._errors.name))
        asked = request.get("call", "import")
        return WorkerDied(f"worker {self.what} ended with {how} during {asked}", last)

    def stderr(self, lines: int = 20) -> str:
        """The last lines of what the worker printed."""
        return tail(Path(self._errors.name), lines)

    def close(self) -> None:
        """Ends the worker; kills it if it is still busy after a few seconds."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # it has ended already
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            pass  # it is killed below
        self.kill()

    def kill(self) -> None:
        """Ends the worker at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # an unsent request, which nobody waits for
        if not self._errors.closed:
            self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, value, trace) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.kill()  # Ctrl-C does not wait
        else:
            self.close()
