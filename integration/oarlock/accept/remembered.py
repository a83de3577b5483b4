"""Values that an interrupted experiment need not compute again, one file each."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Remembered:
    """Values by key in a folder; without a folder in memory only."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self._values: dict[str, Any] = {}

    def get(self, key: Any, compute: Callable[[], Any]) -> Any:
        """The value kept under `key`, or that of `compute`, which is kept.

        Raises:
            ValueError: the key or the value is not JSON, or holds NaN or infinity.
        """
        text = _json("key", key, key)
        if text in self._values:
            return self._values[text]
        path = self._path(text)
        if path is not None and path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            self._values[text] = record["value"]
            return record["value"]
        value = json.loads(_json("value", key, compute()))  # as it comes back after a restart
        self._values[text] = value
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}")
            part.write_text(json.dumps({"key": key, "value": value}), encoding="utf-8")
            part.replace(path)
        return value

    def clear(self) -> None:
        """Forgets everything."""
        self._values.clear()
        if self.folder is not None and self.folder.exists():
            shutil.rmtree(self.folder)

    def _path(self, text: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def _json(what: str, key: Any, value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"remember({key!r}): the {what} must be plain JSON; {error}") from error
