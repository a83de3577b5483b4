"""What an agent tells its process."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from oarlock.fleet_ext.elastic import Size

_PREFIX = "OARLOCK_FLEET_"
_MORE = ("TLS", "THREADS", "PROGRESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """
    Args:
        job: name.
        store: address of the job's store, host and port.
        token: the job's secret.
        node: name of this node and process, which no other has.
        host: by which other nodes reach this one.
        size: how many train, unless the store says otherwise.
        tls: folder with rank.pem, rank.key and authority.pem, for encrypted connections.
        threads: that this process computes with; None for what Paddle takes.
        progress: file in which the process says how far it is.
    """

    job: str
    store: tuple[str, int]
    token: str
    node: str
    size: Size
    host: str = "127.0.0.1"
    tls: Path | None = None
    threads: int | None = None
    progress: Path | None = None

    def environment(self) -> dict[str, str]:
        """As variables, for `NodePlace.read` in the process."""
        host, port = self.store
        values = {"JOB": self.job, "STORE": f"{host}:{port}", "TOKEN": self.token, "NODE": self.node,
                  "HOST": self.host, "LEAST": self.size.least, "MOST": self.size.most}  # fmt: skip
        more = dict(zip(_MORE, (self.tls, self.threads, self.progress)))
        values |= {name: value for name, value in more.items() if value is not None}
        return {_PREFIX + name: str(value) for name, value in values.items()}

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Self:
        """From this process's environment.

        Raises:
            ValueError: no agent started it, or a variable is not what it should be.
        """
        given = os.environ if environment is None else environment
        names = ("JOB", "STORE", "TOKEN", "NODE", "LEAST", "MOST")
        missing = [_PREFIX + name for name in names if _PREFIX + name not in given]
        if missing:
            raise ValueError(
                f"{', '.join(missing)} must be set: start the script by `oarlock-fleet agent ... -- python script.py`"
            )
        host, _, port = given[_PREFIX + "STORE"].rpartition(":")
        tls, threads, progress = (given.get(_PREFIX + name) for name in _MORE)
        return cls(
            job=given[_PREFIX + "JOB"],
            store=(host, int(port)),
            token=given[_PREFIX + "TOKEN"],
            node=given[_PREFIX + "NODE"],
            size=Size(least=int(given[_PREFIX + "LEAST"]), most=int(given[_PREFIX + "MOST"])),
            host=given.get(_PREFIX + "HOST", "127.0.0.1"),
            tls=Path(tls) if tls else None,
            threads=int(threads) if threads else None,
            progress=Path(progress) if progress else None,
        )
