"""`python -m oarlock.fleet_ext.rendezvous`: a store, until it is told to end."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from oarlock.fleet_ext.rendezvous.journal import JournalError
from oarlock.fleet_ext.rendezvous.server import StoreServer
from oarlock.fleet_ext.transport import wire

TOKEN = "OARLOCK_STORE_TOKEN"
_ENDS = {signal.SIGTERM, signal.SIGINT}


app = typer.Typer()


@app.command()
def main(
    host: Annotated[str, typer.Option(help="address to listen on; '' for all")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for a free one", min=0, max=65535)] = 0,
    job: Annotated[str, typer.Option(help="name, which clients must agree on")] = "job",
    token_file: Annotated[
        Path | None, typer.Option(help=f"file with the job's token; without, {TOKEN} has it")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="file that gives a restarted server its keys again")
    ] = None,
    durable: Annotated[bool, typer.Option(help="wait for the disk on each change")] = False,
    certificate: Annotated[Path | None, typer.Option(help="PEM file, for TLS")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file, for TLS")] = None,
    authority: Annotated[Path | None, typer.Option(help="PEM file of who signed them")] = None,
) -> None:
    """Serves a key-value store, and says where on standard output."""
    try:
        tls = _tls(certificate, key, authority)
        token = _token(token_file)
        server = StoreServer(
            job=job, token=token, host=host, port=port, tls=tls, journal=journal, durable=durable
        )
    except (ValueError, OSError, JournalError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"listening on {server.address[0]}:{server.address[1]}")
    signal.sigwait(_ENDS)
    server.close()


def _token(path: Path | None) -> str:
    token = os.environ.get(TOKEN, "") if path is None else path.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"there is no token: give --token-file, or set {TOKEN}")
    return token


def _tls(certificate: Path | None, key: Path | None, authority: Path | None) -> wire.Tls | None:
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise ValueError("--certificate, --key and --authority go together")
    return wire.Tls(certificate=certificate, key=key, authority=authority)


if __name__ == "__main__":
    # Blocked before threads begin, signals are left for `main` to wait for.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    app()
