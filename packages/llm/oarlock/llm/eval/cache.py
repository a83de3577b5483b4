"""Answers that were paid for, kept on disk: an evaluation goes on where it stopped."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class AnswerCache:
    """Answers by backend and request, in an SQLite file.

    The key holds everything that the backend says of itself, so that another model, dtype or way to run it never
    gets these answers. Several processes may share a file.

    Args:
        path: of the file; made, with its folder, if it is not there.

    Raises:
        ValueError: the file is something else.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self.path, timeout=30)
        try:
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
                )
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(f"{self.path} is no cache of answers: {error}.") from error

    @staticmethod
    def key(backend: Mapping[str, Any], kind: str, request: Any) -> str:
        """Key of a request."""
        text = json.dumps([dict(backend), kind, request], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The known ones among ``keys``."""
        found: dict[str, Any] = {}
        for begin in range(0, len(keys), 500):
            part = list(keys[begin : begin + 500])
            marks = ",".join("?" * len(part))
            rows = self._connection.execute(
                f"SELECT key, value FROM answers WHERE key IN ({marks})", part
            )
            found |= {key: json.loads(value) for key, value in rows}
        return found

    def put(self, answers: Mapping[str, Any]) -> None:
        """Keep answers; on disk when this returns."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)",
                [(key, json.dumps(value)) for key, value in answers.items()],
            )

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
