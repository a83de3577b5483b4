"""Ranks as threads of the test's process, each with its own connections."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from oarlock.fleet_ext.transport import Listener, MeshGroup, connect, new_token


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
    """What `function(group)` returns on each of so many ranks; its errors are returned too."""
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


def well(results):
    """The results, of which none is an error."""
    for one in results:
        if isinstance(one, Exception):
            raise one
    return results
