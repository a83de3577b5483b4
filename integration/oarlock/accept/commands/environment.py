"""`prepare` and `peers`: what experiments need beside their code."""

from typing import Annotated

import typer

from oarlock.accept import peers, prepare
from oarlock.accept.commands.common import err, explained, fail, out, table

peers_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Libraries that experiments compare with."
)


@explained
def prepare_(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Models; all by default.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away and train anew.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only list the models.")] = False,
) -> None:
    """Train the models that several experiments share.

    Writes <cache>/oarlock/models/<name>-<hash>/ (model.safetensors, card.json). Ctrl-C keeps a
    checkpoint; the same command goes on from there.
    """
    if list_only:
        rows = table("model", "state", "what it is")
        for name in names or prepare.names():
            one = prepare.status(name)
            begun = f"{one.step} of {one.steps}" if one.state == "begun" else one.state
            rows.add_row(name, begun, one.summary + (f" ({one.reason})" if one.reason else ""))
        out().print(rows)
        return
    try:
        done = prepare.prepare(names or None, progress=err().is_terminal, fresh=fresh)
    except KeyboardInterrupt as interrupt:
        err().print(f"interrupted: {interrupt}", markup=False)
        raise typer.Exit(130) from interrupt
    except (prepare.ModelCorrupt, RuntimeError) as error:
        raise fail(str(error)) from error
    for one in done:
        out().print(f"{one.name}: {one.state}, {one.folder}", markup=False, soft_wrap=True)


@peers_app.command("list")
@explained
def list_peers() -> None:
    """List the peers, and whether they are installed. Writes nothing."""
    rows = table("peer", "state", "requirements", "what it is")
    for name, peer in peers.load().items():
        what = f"{peer.summary} (about {peer.size_mb} MB)"
        rows.add_row(name, peers.state(name), " ".join(peer.requirements), what)
    out().print(rows)


@peers_app.command("install")
@explained
def install_peer(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A peer of `peers list`.")],
) -> None:
    """Install a peer with pip into an environment of its own.

    Writes <cache>/oarlock/peers/<name>-<hash>/ and a .log file beside it.
    """
    peer = peers.find(name)
    if peers.state(name) != "ready":
        err().print(f"installing {' '.join(peer.requirements)}: {peer.size_mb} MB", markup=False)
    out().print(f"{name}: {peers.install(name)}", markup=False, soft_wrap=True)
