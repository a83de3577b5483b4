"""What is saved and wanted, cut in many ways."""

import ml_dtypes
import numpy as np
from oarlock.fleet_ext.checkpoints import (
    Sharded,
    load,
    save,
)

# fmt: skip
from ranks import together, well

GRIDS = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2)}


def values(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return np.asarray(rng.integers(0, 100, shape)).astype(dtype)


WHOLE = {
    "rows": values((10, 7), np.float32, 1),
    "columns": values((5, 9), ml_dtypes.bfloat16, 2),
    "blocks": values((6, 8, 2), np.float64, 3),
    "replica": values((300, 200), np.float32, 4),
    "wide": values((2, 40_000), ml_dtypes.bfloat16, 5),
    "pairs": values((200, 100), np.int64, 6),
    "last": values((3,), np.int32, 7),
    "few": values((2, 3), np.float16, 8),
    "scalar": values((), np.float32, 9),
    "half": values((), ml_dtypes.bfloat16, 10),
    "nothing": values((0, 3), np.float32, 11),
    "flags": values((5,), bool, 12),
    "complex": values((3, 2), np.complex64, 13),
    "small": values((4, 4), ml_dtypes.float8_e4m3fn, 14),
}  # fmt: skip
#: How ranks have them: when they are saved, and, in another way, when they are loaded.
SAVED = {"rows": "rows", "few": "rows", "columns": "columns", "blocks": "blocks", "pairs": "pairs", "last": "last",
         "nothing": "rows"}  # fmt: skip
WANTED = {"rows": "columns", "columns": "rows", "blocks": "rows", "replica": "blocks", "pairs": "columns",
          "wide": "columns", "small": "rows", "complex": "columns"}  # fmt: skip


def slices_of(shape, kind, rank, size):
    """A rank's slice."""
    down, across = {"rows": (size, 1), "columns": (1, size), "blocks": GRIDS[size],
                    "pairs": ((size + 1) // 2, 1)}[kind]  # fmt: skip
    place = rank // 2 if kind == "pairs" else rank
    row, column = divmod(place, across)
    return tuple(
        slice(length * index // count, length * (index + 1) // count)
        for length, index, count in zip(shape, (row, column), (down, across))
    )


def as_had(kinds, rank, size, whole=WHOLE, filled=True):
    """What a rank has of everything."""
    found = {}
    for name, one in whole.items():
        kind = kinds.get(name)
        if kind is None:
            local = one.copy()
        elif kind == "last":
            local = one.copy()
        else:
            part = slices_of(one.shape, kind, rank, size)
            local = one[part].copy()
        if not filled:
            local = np.zeros_like(local)
        if kind is None:
            found[name] = local
        elif kind != "last":
            offsets = [one.start for one in part] + [0] * (one.ndim - len(part))
            found[name] = Sharded(local, one.shape, offsets)
        elif rank == size - 1:
            found[name] = Sharded(local)
    return found


def array_of(one):
    return one.local if isinstance(one, Sharded) else one


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        ours, theirs = array_of(found[name]), array_of(expected[name])
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes(), name


def saved_by(size, folder, step=7, kinds=SAVED, metadata=None):
    def run(group):
        state = as_had(kinds, group.rank, size)
        handle = save(state, folder, step, group, metadata={"rank": group.rank, "more": metadata})
        return handle.wait(), handle.bytes, handle.written

    return well(together(size, run))


def one_step(folder, step, value=None):
    """A small checkpoint of one process."""
    state = {"x": np.full(5, step if value is None else value, np.float32), "y": np.ones((2, 2))}
    return save(state, folder, step, metadata={"step": step}).wait()


def x_of(checkpoint):
    state = {"x": np.zeros(5, np.float32), "y": np.zeros((2, 2))}
    load(checkpoint, state)
    return state["x"][0]
