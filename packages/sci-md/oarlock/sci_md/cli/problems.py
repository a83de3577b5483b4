"""How commands say what is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def told() -> Iterator[None]:
    """Turns a refusal into one line on stderr and exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"oarlock-md: {_said(error)}", err=True)
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("oarlock"):
            raise
        typer.echo(f"oarlock-md: {error.name} is not installed", err=True)
        raise typer.Exit(2) from error


def _said(error: ValueError | OSError) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{error.strerror.lower()}"
