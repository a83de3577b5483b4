"""`oarlock-fleet agent`, `resize` and `status`."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from oarlock.fleet_ext.agent.board import lines
from oarlock.fleet_ext.agent.cluster import Cluster
from oarlock.fleet_ext.agent.cluster import resize as ask_for
from oarlock.fleet_ext.agent.place import NodePlace
from oarlock.fleet_ext.agent.supervising import Agent, GaveUp, Policy
from oarlock.fleet_ext.cli.stores import (
    JobOption,
    StoreOption,
    TlsOption,
    TokenOption,
    address_of,
    connected,
    token_of,
)
from oarlock.fleet_ext.elastic import Size
from oarlock.fleet_ext.rendezvous import StoreError

_ANY = 1 << 20  #: nodes: no limit
_AWAY_S = 5.0  #: for which the store may be away
_USUAL = Policy()


def agent(
    context: typer.Context,
    store: StoreOption,
    token_file: TokenOption,
    node: Annotated[str, typer.Option(help="Name of this node; each has its own.")] = "",
    host: Annotated[str, typer.Option(help="By which other nodes reach this one.")] = "127.0.0.1",
    least: Annotated[int, typer.Option(min=1, help="Nodes that training needs.")] = 1,
    most: Annotated[
        int | None,
        typer.Option(min=1, help="Nodes that train; more are spare. No limit if not given."),
    ] = None,
    job: JobOption = "job",
    tls: TlsOption = None,
    logs: Annotated[Path | None, typer.Option(help="Folder for a file of the lines.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="To compute with; OMP_NUM_THREADS, or all cores, if not given."),
    ] = None,
    deaths: Annotated[
        int, typer.Option(min=1, help="In a row without a step further, and this gives up.")
    ] = _USUAL.deaths,
    stopped: Annotated[
        float, typer.Option(min=0.0, help="Seconds for which the process may be stopped.")
    ] = _USUAL.stopped,
    hung: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds without moving while others train without it."),
    ] = _USUAL.hung,
    drain: Annotated[
        float, typer.Option(min=0.0, help="Seconds to leave in, when told to end.")
    ] = _USUAL.drain,
) -> None:
    """Runs a training process on this node, and starts it again where it dies or hangs.

    Behind -- stands the command, such as `-- python train.py`, which uses `oarlock.fleet_ext.agent.enter()`. The store is
    that of `python -m oarlock.fleet_ext.rendezvous`. Told to end (SIGTERM, Ctrl-C), the process leaves the others
    after its step; they go on. Ends with 0 when training is over.
    """
    if not context.args:
        raise typer.BadParameter("a command is needed, such as `-- python train.py`")
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = len(os.sched_getaffinity(0))
    try:
        size = Size(least=least, most=_ANY if most is None else most)
        client = connected(store, token_file, job, tls, timeout=_AWAY_S)
        place = NodePlace(
            job=job, store=address_of(store), token=token_of(token_file), node=node or socket.gethostname(), host=host,
            size=size, tls=tls, threads=threads,
        )  # fmt: skip
        policy = Policy(deaths=deaths, stopped=stopped, hung=hung, drain=drain)
        with client:
            Agent(context.args, client, place, policy=policy, logs=logs, told=_say).run()
    except GaveUp as error:
        _say(f"{node or socket.gethostname()}: {error}")
        raise typer.Exit(error.code if error.code > 0 else 128 - error.code) from error
    except (ValueError, StoreError, OSError) as error:
        raise _failed(error) from error


def resize(
    store: StoreOption,
    token_file: TokenOption,
    least: Annotated[int | None, typer.Option(min=1, help="As it was if not given.")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="As it was if not given.")] = None,
    job: JobOption = "job",
    tls: TlsOption = None,
) -> None:
    """Changes how many nodes train, while they run: more come from the spare ones, or when they are started."""
    try:
        with connected(store, token_file, job, tls, timeout=_AWAY_S) as client:
            before = Cluster.read(client).size
            if before is None and (least is None or most is None):
                raise ValueError("least and most must be given the first time: --least 2 --most 4")
            size = Size(
                least=least if least is not None else before.least,  # type: ignore[union-attr]
                most=most if most is not None else before.most,  # type: ignore[union-attr]
            )
            ask_for(client, size)
    except (ValueError, StoreError) as error:
        raise _failed(error) from error


def status(
    store: StoreOption, token_file: TokenOption, job: JobOption = "job", tls: TlsOption = None
) -> None:
    """Shows the nodes of a job: who trains as which rank, who is spare, and what happened."""
    try:
        with connected(store, token_file, job, tls, timeout=_AWAY_S) as client:
            cluster, nodes = Cluster.read(client), lines(client)
    except (ValueError, StoreError) as error:
        raise _failed(error) from error
    epoch = cluster.epoch
    state = "done" if cluster.done else "none yet" if epoch is None else f"epoch {epoch.number}"
    asked = f", {cluster.size.least} to {cluster.size.most} nodes asked for" if cluster.size else ""
    typer.echo(f"{state}, {len(epoch.nodes) if epoch else 0} ranks{asked}")
    rows = [("node", "rank", "doing", "steps", "starts", "before")]
    for name, line in nodes.items():
        rank = cluster.rank(line.process)
        doing = "spare" if line.phase == "waiting" and rank is None else line.phase
        rows.append((name, "-" if rank is None else str(rank), doing, str(line.steps), str(line.starts), line.last))  # fmt: skip
    known = {line.process for line in nodes.values()}
    for process in sorted(cluster.there - known):
        rank = cluster.rank(process)
        rows.append((process, "-" if rank is None else str(rank), "?", "?", "?", "has no agent"))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())


def _say(words: str) -> None:
    typer.echo(words, err=True)


def _failed(error: Exception) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(1)
