"""Numbers that depend on a key alone: its shard, and its row's first values.

All come from SplitMix64's finaliser, a bijection of 64 bits, so that neither the order in which keys come nor the
number of shards or servers changes what a row begins with.
"""

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser of uint64, element by element."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def salt_of(name: str, seed: int = 0) -> int:
    """64 bits of a name (FNV-1a) and a seed."""
    found = 0xCBF29CE484222325
    for byte in name.encode():
        found = ((found ^ byte) * 0x100000001B3) & _MASK
    return int(mixed(np.array([(found + seed * _GOLDEN) & _MASK], np.uint64))[0])


def shard_of(keys: np.ndarray, salt: int, shards: int) -> np.ndarray:
    """The shard of each key.

    Args:
        keys: int64 [n].
        salt: of the table.

    Returns:
        int64 [n], from 0 to shards - 1.
    """
    return (mixed(keys.view(np.uint64) ^ np.uint64(salt)) % np.uint64(shards)).astype(np.int64)


def uniform_of(keys: np.ndarray, salt: int, columns: int) -> np.ndarray:
    """Uniform numbers in [0, 1), which depend on key, salt and column alone.

    Args:
        keys: int64 [n].

    Returns:
        float64 [n, columns], with 53 random bits each.
    """
    rows = mixed(mixed(keys.view(np.uint64)) ^ np.uint64(salt))
    steps = np.arange(1, columns + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (mixed(rows[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def as_keys(given: object, argument: str = "keys") -> np.ndarray:
    """Keys as int64 [n]; those of uint64 keep their bits.

    Raises:
        ValueError: they are no integers.
    """
    keys = np.asarray(given)
    if keys.dtype == np.uint64:
        return np.ascontiguousarray(keys).reshape(-1).view(np.int64)
    if keys.dtype.kind not in "iu" and keys.size:
        raise ValueError(
            f"{argument} must be integers of at most 64 bits, not {keys.dtype}: hash other features to int64"
        )
    return np.ascontiguousarray(keys, np.int64).reshape(-1)
