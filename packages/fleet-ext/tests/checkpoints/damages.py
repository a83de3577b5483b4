"""What can happen to a checkpoint of two ranks, and what is said of it."""

import os

from oarlock.fleet_ext.checkpoints import files


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)


FILE = files.file_of(1)
DAMAGES = {
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "has no manifest.json"),
    "empty manifest": (lambda path: os.truncate(path / "manifest.json", 0), "manifest.json is torn"),
    "half a manifest": (lambda path: os.truncate(path / "manifest.json", 700), "manifest.json is torn"),
    "no last byte": (
        lambda path: os.truncate(path / "manifest.json", (path / "manifest.json").stat().st_size - 1),
        "manifest.json is torn",
    ),
    "bit of the manifest": (lambda path: flip(path / "manifest.json", 500), "manifest.json is torn"),
    "no file": (lambda path: (path / FILE).unlink(), f"{FILE} is missing"),
    "empty file": (lambda path: os.truncate(path / FILE, 0), f"{FILE} has 0 bytes"),
    "half a file": (lambda path: os.truncate(path / FILE, 100_000), f"{FILE} has 100000 bytes"),
    "bit of a header": (lambda path: flip(path / FILE, 20), f"{FILE} is damaged"),
    "bit of a tensor": (lambda path: flip(path / FILE, 100_000), f"{FILE} is damaged"),
    "last bit": (lambda path: flip(path / FILE, -1), f"{FILE} is damaged"),
    "only a folder": (lambda path: [one.unlink() for one in path.iterdir()], "has no manifest.json"),
}  # fmt: skip
