"""The loop of a worker process: serves the functions of one module, JSON in and JSON out.

Run as a file, by any CPython from 3.8 on: it imports nothing but the standard library. Each line of
standard input is a request and gets one line of answer on what was standard output. Whatever else the
process prints goes to standard error.

    {"load": "package.module" or "path.py", "path": [...] or null}
    {"call": "function", "arguments": {...}}
"""

import sys

if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, which is no place to import from

import importlib  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import traceback  # noqa: E402


def load(name, path):
    if path is not None:
        sys.path[:] = path
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("worker_module", name)
    module = importlib.util.module_from_spec(spec)
    sys.modules["worker_module"] = module
    spec.loader.exec_module(module)
    return module


def function_of(module, name):
    function = getattr(module, name, None)
    if name.startswith("_") or not callable(function):
        raise AttributeError("{} has no public function {!r}".format(module.__name__, name))
    return function


def serve(requests, answers):
    module = None
    for line in requests:
        try:
            request = json.loads(line)
            if "load" in request:
                module = load(request["load"], request["path"])
                answer = {"value": None}
            else:
                answer = {"value": function_of(module, request["call"])(**request["arguments"])}
            text = json.dumps(answer)
        except Exception as error:
            trace = traceback.format_exc()
            text = json.dumps(
                {"error": type(error).__name__, "message": str(error), "traceback": trace}
            )
        answers.write(text + "\n")
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started the worker ends it
    incoming = os.fdopen(os.dup(0), "r", encoding="utf-8")
    outgoing = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    serve(incoming, outgoing)
