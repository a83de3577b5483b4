"""`oarlock-fleet tables`."""

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from oarlock.fleet_ext.cli.stores import JobOption, StoreOption, TlsOption, address_of
from oarlock.fleet_ext.job import tls_of
from oarlock.fleet_ext.parameter_server import Layout, TableServer
from oarlock.fleet_ext.rendezvous import StoreError, TcpStore

TOKEN = "OARLOCK_STORE_TOKEN"


def tables(
    store: StoreOption,
    tables: Annotated[Path, typer.Option(help="YAML file of tables, the same for all servers.", exists=True, dir_okay=False)],  # fmt: skip
    name: Annotated[str, typer.Option(help="Of this server, for people.")] = "server",
    host: Annotated[str, typer.Option(help="By which others reach this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for a free one.", min=0, max=65535)] = 0,
    job: JobOption = "job",
    token_file: Annotated[
        Path | None, typer.Option(help=f"The job's secret; without, {TOKEN} has it.", exists=True)
    ] = None,
    tls: TlsOption = None,
    folder: Annotated[
        Path | None, typer.Option(help="Of this server's own, for tables with hot_rows.")
    ] = None,
    lease: Annotated[
        float, typer.Option(help="Seconds after which a server that stands still is lost.")
    ] = 2.0,
    drain: Annotated[
        float, typer.Option(help="Seconds that other servers have to take its shards at SIGTERM.")
    ] = 60.0,
) -> None:
    """Serves tables of a parameter server until SIGTERM or Ctrl-C, which first move its shards to other servers."""
    try:
        address = address_of(store)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    token = token_file.read_text().strip() if token_file else os.environ.get(TOKEN, "")
    if not token:
        raise typer.BadParameter(f"give it, or set {TOKEN}", param_hint="--token-file")
    ends = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, frame: ends.set())
    certificates = tls_of(tls) if tls is not None else None
    try:
        client = TcpStore(*address, job=job, token=token, tls=certificates)
        server = TableServer(
            client, layout=Layout.read(tables), token=token, job=job, name=name, host=host, port=port,
            tls=certificates, folder=folder, lease=lease,
        )  # fmt: skip
    except (ValueError, OSError, StoreError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{server.name} serves on {server.address[0]}:{server.address[1]}")
    while not ends.wait(0.2):
        if server.wait(0.0):
            typer.echo(f"error: {server.error}", err=True)
            raise typer.Exit(1)
    code = 0
    try:
        server.drain(drain)
    except (TimeoutError, StoreError) as error:
        typer.echo(f"error: {error}", err=True)
        code = 1
    server.close()
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(tables)
