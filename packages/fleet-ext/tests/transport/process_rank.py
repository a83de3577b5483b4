"""A rank that is a process of its own: adds up ones for ever, and says what becomes of it.

Called with its rank, how many there are, a folder that all share and seconds for an operation.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from oarlock.fleet_ext.transport import Listener, MeshGroup, TransportError, connect


class Folder:
    """A store of files."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def set(self, key, value):
        path = self.folder / key.replace("/", "-")
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(value)
        part.rename(path)

    def wait(self, keys, timeout):
        until = time.monotonic() + timeout
        while not all((self.folder / key.replace("/", "-")).exists() for key in keys):
            if time.monotonic() > until:
                raise TimeoutError("keys are missing")
            time.sleep(0.01)
        return {key: (self.folder / key.replace("/", "-")).read_bytes() for key in keys}


def main(rank, size, folder, seconds):
    listener = Listener(job="test", token="token")
    mesh = connect(Folder(folder), listener, rank=rank, size=size, token="token")
    group = MeshGroup(mesh, range(size), "all", seconds)
    array, count = np.ones(100_000, np.float32), 0
    try:
        while True:
            group.all_reduce(array, "mean").wait()
            count += 1
            if count == 5:
                print("running", flush=True)
    except TransportError as error:
        print(f"{time.time()} {type(error).__name__} {error}", flush=True)
    mesh.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
