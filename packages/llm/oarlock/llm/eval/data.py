"""Where data sets are found on this machine, by name."""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

#: Folder of a data set by its name, such as "llm/gsm8k".
Finder = Callable[[str], Path]


class DataMissing(LookupError):
    """A data set is not on this machine; says where it was looked for."""


def find(name: str) -> Path:
    """Folder of the data set ``name``: below ``$OARLOCK_DATA``, else in the user's cache.

    Raises:
        DataMissing: it is in neither.
    """
    roots = [platformdirs.user_cache_path("oarlock") / "data"]
    if archive := os.environ.get("OARLOCK_DATA"):
        roots.insert(0, Path(archive).expanduser())
    for root in roots:
        if (root / name).is_dir():
            return root / name
    looked = " and ".join(str(root / name) for root in roots)
    raise DataMissing(
        f"no data set {name!r}: looked for {looked}. Set OARLOCK_DATA to the folder of the data sets, "
        "or fetch it with `oarlock-accept prepare`."
    )
