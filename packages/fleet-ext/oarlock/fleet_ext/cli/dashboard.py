"""`oarlock-fleet dashboard`."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from oarlock.fleet_ext.cli.stores import JobOption, StoreOption, TlsOption, TokenOption, connected
from oarlock.fleet_ext.dashboard import serve
from oarlock.fleet_ext.dashboard.app import read_report
from oarlock.fleet_ext.rendezvous import StoreError


def dashboard(
    store: StoreOption,
    token_file: TokenOption,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: any free.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Who reaches another address than this may look, too.")
    ] = "127.0.0.1",
    report: Annotated[
        Path | None, typer.Option(help="JSON of a drill, to be shown.", exists=True)
    ] = None,
    job: JobOption = "job",
    tls: TlsOption = None,
) -> None:
    """Shows a job in a browser: nodes, throughput, faults, messages, and replicas where it serves."""
    try:
        shown = read_report(report) if report is not None else None
        with connected(store, token_file, job, tls) as client:
            client.read("elastic/")  # a wrong address or token is told at once
            page = serve(client, host=host, port=port, title=job, report=shown)
            typer.echo(f"the page is at {page.url}")
            told = threading.Event()
            for one in (signal.SIGINT, signal.SIGTERM):
                signal.signal(one, lambda number, frame: told.set())
            told.wait()
            page.close()
    except (ValueError, StoreError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
