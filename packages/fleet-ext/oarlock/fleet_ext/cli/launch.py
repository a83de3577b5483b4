"""`oarlock-fleet launch`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from oarlock.fleet_ext.cli.stores import TlsOption, address_of, token_of
from oarlock.fleet_ext.job import Place, tls_of
from oarlock.fleet_ext.launching import Ended, Ranks
from oarlock.fleet_ext.rendezvous import StoreServer
from oarlock.fleet_ext.transport import new_token


def launch(
    context: typer.Context,
    script: Annotated[str, typer.Argument(help="A Python file, or with -m a module.")],
    ranks: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines, each with as many processes.")] = 1,
    node: Annotated[int, typer.Option(min=0, help="Which of them this is; 0 has the store.")] = 0,
    store: Annotated[
        str, typer.Option(help="host:port of the store on machine 0; needed with several machines.")
    ] = "",
    host: Annotated[str, typer.Option(help="By which others reach this machine.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="The job's secret, the same on all machines.", exists=True)
    ] = None,
    tls: TlsOption = None,
    job: Annotated[str, typer.Option(help="Name, the same on all machines.")] = "job",
    logs: Annotated[Path | None, typer.Option(help="Folder for a file of each rank.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of each process; OMP_NUM_THREADS, or cores by processes, if not given."
        ),
    ] = None,
    tracebacks: Annotated[
        bool, typer.Option("--tracebacks", help="Also of ranks that end because another failed.")
    ] = False,
    module: Annotated[bool, typer.Option("-m", "--module", help="SCRIPT is a module.")] = False,
) -> None:
    """Starts a script as several ranks, which find each other by `oarlock.fleet_ext.join()`.

    Arguments behind SCRIPT are the script's, and what ranks write, errors too, comes out on standard output. Where a rank
    fails, the others are ended, and this exits with its code. Rank 0 alone has the standard input.
    """
    if node >= nodes:
        raise typer.BadParameter(f"must be below --nodes, {nodes}", param_hint="--node")
    if nodes > 1 and (not store or token_file is None):
        raise typer.BadParameter(
            "--store and --token-file are needed with several machines", param_hint="--nodes"
        )
    try:
        token = token_of(token_file) if token_file is not None else new_token()
        where, port = address_of(store) if store else (host, 0)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    server = None
    if nodes > 1 and host.startswith("127.") and not where.startswith("127."):
        raise typer.BadParameter(
            "must say how the other machines reach this one: they cannot by 127.0.0.1",
            param_hint="--host",
        )
    if node == 0:
        try:
            server = StoreServer(
                job=job, token=token, host=where, port=port, tls=tls_of(tls) if tls else None
            )
        except OSError as error:
            raise typer.BadParameter(
                f"{where}:{port} cannot be listened on: {error.strerror}", param_hint="--store"
            ) from error
    address = (where, port) if server is None else (where, server.address[1])
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    places = [
        Place(job=job, rank=node * ranks + local, size=nodes * ranks, local_rank=local, store=address, token=token,
              host=host, tls=tls, local_size=ranks, threads=threads)
        for local in range(ranks)
    ]  # fmt: skip
    command = [sys.executable, *(["-m"] if module else []), script, *context.args]
    try:
        failure = Ranks(command, places, threads=threads, logs=logs, tracebacks=tracebacks).wait()
    except Ended as ended:
        raise typer.Exit(128 + ended.signal) from None
    finally:
        if server is not None:
            server.close()
    if failure is not None:
        typer.echo(str(failure), err=True)
        raise typer.Exit(failure.code if failure.code > 0 else 128 - failure.code)
