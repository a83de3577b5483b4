"""`oarlock-fleet serve` and `rescale`."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from oarlock.fleet_ext.cli.stores import (
    JobOption,
    StoreOption,
    TlsOption,
    TokenOption,
    connected,
    token_of,
)
from oarlock.fleet_ext.rendezvous import StoreError, StoreServer, TcpStore
from oarlock.fleet_ext.serving import Agent, Command, Fleet, Patience, Router, Routing, Server
from oarlock.fleet_ext.serving.process import SILENT_S
from oarlock.fleet_ext.serving.routing import HEDGE_S, REPLAYS
from oarlock.fleet_ext.transport import new_token

_PATIENCE, _ROUTING = Patience(), Routing()
_log = logging.getLogger("oarlock.fleet_ext")


def serve(
    context: typer.Context,
    replicas: Annotated[
        int, typer.Option(min=0, help="That answer, in the whole fleet; `rescale` changes it.")
    ] = 1,
    spares: Annotated[int, typer.Option(min=0, help="Ready replicas of this machine.")] = 0,
    capacity: Annotated[
        int | None, typer.Option(min=1, help="Most that answer on this machine; REPLICAS without.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the router.")] = 8000,
    host: Annotated[str, typer.Option(help="Of the router; 0.0.0.0 for all.")] = "127.0.0.1",
    router: Annotated[bool, typer.Option(help="Whether this machine has a router.")] = True,
    address: Annotated[
        str, typer.Option(help="By which routers reach the replicas of this machine.")
    ] = "127.0.0.1",
    node: Annotated[str, typer.Option(help="Name of this machine; each has its own.")] = "",
    health: Annotated[str, typer.Option(help="Path of replicas that says they work.")] = "/health",
    silent: Annotated[
        float, typer.Option(help="Seconds without an answer on it: hung.")
    ] = SILENT_S,
    stuck: Annotated[
        float, typer.Option(help="Seconds without progress of any request: hung.")
    ] = _PATIENCE.stuck,
    start: Annotated[
        float, typer.Option(help="Seconds until a replica answers for the first time.")
    ] = _PATIENCE.start,
    drain: Annotated[
        float, typer.Option(help="Seconds for requests to end at what is drained.")
    ] = _PATIENCE.drain,
    replay: Annotated[
        str, typer.Option(help=f"Requests that are sent again: {', '.join(REPLAYS)}.")
    ] = _ROUTING.replay,
    most: Annotated[
        int, typer.Option(min=1, help="Requests at once at a replica.")
    ] = _ROUTING.most,
    queue: Annotated[
        int, typer.Option(min=0, help="Requests that wait; more are refused with 429.")
    ] = _ROUTING.queue,
    hedge: Annotated[
        float, typer.Option(min=0, help="Seconds to the first byte, then to two; 0: never.")
    ] = HEDGE_S,
    admin_token_file: Annotated[
        Path | None, typer.Option(help="Lets who has it drain and rescale over HTTP.", exists=True)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of a replica; cores by replicas without.")
    ] = None,
    store: StoreOption = "",
    token_file: Annotated[
        Path | None, typer.Option(help="The store's secret.", exists=True)
    ] = None,
    job: JobOption = "serve",
    tls: TlsOption = None,
) -> None:
    """Runs replicas of an HTTP server, and a router in front of them.

    Behind -- stands the command, such as `-- oarlock-llm serve model --port {port}`; {port} and {host} are filled in. A
    replica that dies or hangs is replaced, by a spare one at once, and its requests are sent to another. On SIGTERM
    or Ctrl-C requests end first. Without a command there is only a router.
    """
    _speak()
    try:
        routing = Routing(replay=replay, most=most, queue=queue, hedge_s=hedge or None)  # type: ignore[arg-type]
        patience = Patience(start=start, stuck=stuck, drain=drain)
        command = None
        if context.args:
            here = (capacity or max(1, replicas)) + spares
            command = Command(argv=tuple(context.args), host=address, health=health, silent=silent,
                              threads=threads or max(1, len(os.sched_getaffinity(0)) // here))  # fmt: skip
        elif not router or not store:
            raise ValueError("a command is needed, such as `-- oarlock-llm serve model --port {port}`")  # fmt: skip
        token = token_of(admin_token_file) if admin_token_file is not None else None
        with contextlib.ExitStack() as closing:
            client = closing.enter_context(_shared(store, token_file, job, tls))
            server = Server(
                Router(client, routing=routing, address=f"{host}:{port}", admin_token=token),
                host=host, port=port, drain=drain,
            ) if router else None  # fmt: skip
            agent = Agent(
                client, command, node=node or socket.gethostname(), replicas=replicas, spares=spares,
                capacity=capacity, patience=patience,
            ) if command is not None else None  # fmt: skip
            _run(server, agent)
    except (ValueError, StoreError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if agent is not None and agent.failure is not None:
        typer.echo(f"error: {agent.failure}", err=True)
        raise typer.Exit(1)


def rescale(
    store: StoreOption,
    token_file: TokenOption,
    replicas: Annotated[int | None, typer.Option(min=0, help="That are wanted.")] = None,
    drain: Annotated[str, typer.Option(help="A replica to take out of use.")] = "",
    job: JobOption = "serve",
    tls: TlsOption = None,
) -> None:
    """Changes how many replicas of a fleet answer, or takes one out of use; then shows them."""
    try:
        with connected(store, token_file, job, tls) as client:
            fleet = Fleet(client)
            if replicas is not None:
                fleet.rescale(replicas)
            if drain:
                fleet.drain(drain)
            view = fleet.view()
    except (ValueError, StoreError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{view.wanted} replicas wanted, {len(view.routers)} routers")
    for one in sorted(view.replicas.values(), key=lambda one: (one.slot is None, one.slot, one.id)):
        running = sum(report.uses[one.id].running for report in view.routers.values() if one.id in report.uses)  # fmt: skip
        typer.echo(f"{one.id}  {one.state}  {one.host}:{one.port}  {running} requests")


@contextlib.contextmanager
def _shared(store: str, token_file: Path | None, job: str, tls: Path | None) -> Iterator[TcpStore]:
    """A store that others have, or one of this process's own."""
    if store:
        with connected(store, token_file, job, tls) as client:
            yield client
        return
    token = token_of(token_file) if token_file is not None else new_token()
    server = StoreServer(job=job, token=token)
    try:
        if token_file is not None:
            typer.echo(f"the fleet's store is at {server.address[0]}:{server.address[1]}")
        with TcpStore(*server.address, job=job, token=token) as client:
            yield client
    finally:
        server.close()


def _run(server: Server | None, agent: Agent | None) -> None:
    """Until this process is told to end, or the agent gives up; then requests end before replicas do."""
    told = threading.Event()
    ends = (signal.SIGTERM, signal.SIGINT)

    def end(number: int, frame: Any) -> None:
        if told.is_set():
            raise KeyboardInterrupt  # the second time at once
        told.set()

    before = {one: signal.signal(one, end) for one in ends}
    well = False
    try:
        if server is not None:
            server.start()
            typer.echo(f"router at {server.url}")
        while not told.wait(0.1) and (agent is None or agent.failure is None):
            pass
        if server is not None:
            server.close()
        well = True
    except KeyboardInterrupt:
        pass
    finally:
        if agent is not None:
            agent.close(drain=well)
        for one, handler in before.items():
            signal.signal(one, handler)


def _speak() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
