"""Options of commands that work with a job's store."""

from pathlib import Path
from typing import Annotated

import typer

from oarlock.fleet_ext.job import tls_of
from oarlock.fleet_ext.rendezvous import TcpStore

StoreOption = Annotated[str, typer.Option(help="host:port of the job's store.")]
TokenOption = Annotated[Path, typer.Option(help="The job's secret.", exists=True)]
JobOption = Annotated[str, typer.Option(help="Name, as the store has it.")]
TlsOption = Annotated[
    Path | None, typer.Option(help="Folder with rank.pem, rank.key, authority.pem.", exists=True)
]


def address_of(store: str) -> tuple[str, int]:
    """
    Raises:
        ValueError: it is not host:port.
    """
    host, _, port = store.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--store must be host:port, not {store!r}")
    return host, int(port)


def token_of(path: Path) -> str:
    """
    Raises:
        ValueError: the file is empty.
    """
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"{path} is empty: it must hold a secret text")
    return token


def connected(
    store: str, token_file: Path | None, job: str, tls: Path | None, *, timeout: float = 10.0
) -> TcpStore:
    """A client of the store.

    Args:
        timeout: seconds that the store may be away.

    Raises:
        ValueError: an option is missing, or not what it should be.
        StoreError: the store refuses it, or cannot be reached.
    """
    host, port = address_of(store)
    if token_file is None:
        raise ValueError("--token-file is needed with --store")
    secure = tls_of(tls) if tls is not None else None
    return TcpStore(host, port, job=job, token=token_of(token_file), tls=secure, timeout=timeout)
