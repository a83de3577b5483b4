"""Ranks of a test: threads of its process, each with its own connections, or processes, for gloo."""

import multiprocessing
import os
import pickle
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from oarlock.fleet_ext.transport import Listener, MeshGroup, connect, new_token

from process_rank import Folder


class Memory:
    """A store for threads."""

    def __init__(self):
        self.values, self.change = {}, threading.Condition()

    def set(self, key, value):
        with self.change:
            self.values[key] = value
            self.change.notify_all()

    def wait(self, keys, timeout):
        until = time.monotonic() + timeout
        with self.change:
            while not set(keys) <= self.values.keys():
                if not self.change.wait(max(0.0, until - time.monotonic())):
                    raise TimeoutError(f"{sorted(set(keys) - self.values.keys())} are missing")
            return {key: self.values[key] for key in keys}


def together(size, function, *, timeout=20.0, shared=False, **options):
    """What `function(group)` returns on each of so many ranks; its errors are returned too.

    Over TCP, or where `shared` says so through memory that ranks share.
    """
    store, token = Memory(), new_token()

    def run(rank):
        listener = Listener(job="test", token=token, tls=options.get("tls"), shared=shared)
        try:
            mesh = connect(store, listener, rank=rank, size=size, token=token, **options)
            with mesh, MeshGroup(mesh, range(size), "all", timeout) as group:
                return function(group)
        finally:
            listener.close()

    def guarded(rank):
        try:
            return run(rank)
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(guarded, range(size)))


def together_by_gloo(size, function, *, timeout=20.0, **options):
    """The same, in processes forked from this one, where nothing has used gloo."""
    # Imports Paddle: once, and not in each process.
    from oarlock.fleet_ext.transport.gloo import GlooGroup

    context = multiprocessing.get_context("fork")

    def run(rank, folder, pipe):
        os.environ["PADDLE_TRAINER_ID"] = str(rank)
        try:
            group = GlooGroup(Folder(folder), rank=rank, size=size, name="all", timeout=timeout, **options)  # fmt: skip
            with group:
                found = function(group)
        except Exception as error:
            found = error
        try:
            pickle.loads(pickle.dumps(found))
        except Exception:
            found = RuntimeError(repr(found))
        pipe.send(found)
        pipe.recv()  # until all are done: who waits must not see the end of a process
        os._exit(0)

    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe() for _ in range(size)]
        ranks = [
            context.Process(target=run, args=(rank, folder, pipe[1]), daemon=True)
            for rank, pipe in enumerate(pipes)
        ]
        for one in ranks:
            one.start()
        try:
            return [
                ends[0].recv() if ends[0].poll(60.0) else TimeoutError("the process hangs")
                for ends in pipes
            ]
        finally:
            for one in ranks:
                one.kill()
                one.join()


def well(results):
    """The results, of which none is an error."""
    for one in results:
        if isinstance(one, Exception):
            raise one
    return results
