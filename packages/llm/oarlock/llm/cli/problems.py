"""How commands say what is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def told() -> Iterator[None]:
    """Turn a refusal into one line on stderr and exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"oarlock-llm: {error}", err=True)
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("oarlock"):
            raise
        typer.echo(
            f"oarlock-llm: {error.name} is not installed: pip install 'oarlock-llm[server]'.",
            err=True,
        )
        raise typer.Exit(2) from error
