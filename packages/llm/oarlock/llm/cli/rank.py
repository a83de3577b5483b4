"""`oarlock-llm rank`: a process that computes a part of a model for another machine."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told


def rank(
    join: Annotated[
        str, typer.Option(help="HOST:PORT where the leader listens (`serve --rank-listen`).")
    ],
    token_file: Annotated[
        Optional[Path],
        typer.Option(
            help="A file with the token that the leader has; or the environment variable "
            f"{engine.RANK_TOKEN}."
        ),
    ] = None,
    threads: engine.Threads = None,
    wait_s: Annotated[
        float, typer.Option(help="How long to try while nobody listens, seconds.")
    ] = 60.0,
) -> None:
    """Compute a part of a model, until the leader ends. It needs no files: the leader sends them.

    For example, on two machines:

        oarlock-llm serve MODEL --ranks 2 --rank-listen 10.0.0.1:7000 --rank-token-file token

        oarlock-llm rank --join 10.0.0.1:7000 --token-file token
    """
    with told(locals()):
        import logging

        from oarlock.llm.ranks import follower

        logging.basicConfig(level=logging.INFO, format="%(message)s")
        follower.join(join, engine.rank_token(token_file), threads=threads, wait_s=wait_s)
