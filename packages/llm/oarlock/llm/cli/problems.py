"""How commands say what is wrong."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import typer

#: Parameters of commands that are no options.
ARGUMENTS = frozenset({"model", "prompt", "source", "target", "url"})


@contextmanager
def told(parameters: Iterable[str]) -> Iterator[None]:
    """Turn a refusal into one line on stderr and exit status 2.

    Args:
        parameters: of the command, as ``locals()`` has them at its beginning.
    """
    options = {one: f"--{one.replace('_', '-')}" for one in parameters if one not in ARGUMENTS}
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"oarlock-llm: {_said(error, options)}", err=True)
        raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("oarlock"):
            raise
        typer.echo(
            f"oarlock-llm: {error.name} is not installed: pip install 'oarlock-llm[server]'.",
            err=True,
        )
        raise typer.Exit(2) from error


def _said(error: ValueError | OSError, options: Mapping[str, str]) -> str:
    if not isinstance(error, OSError):
        return with_options(str(error), options)
    if error.strerror is None:  # a sentence of ours
        return str(error)
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{error.strerror.lower()}"


def with_options(text: str, options: Mapping[str, str]) -> str:
    """A refusal of the Python interface with the names that the command line has.

    A name is one where it begins the text, where a value follows (``force=True``), or where it has an underscore, as
    no English word has; not in paths, and not in quotes, which show what was given.

    >>> with_options("max_length must be in 1..32, got 99.", {"max_length": "--max-length"})
    '--max-length must be in 1..32, got 99.'
    """
    if not options:
        return text
    names = "|".join(map(re.escape, options))
    found = re.compile(rf"(?<![\w/.'\"-])({names})(?:=(?:True|'([^']*)')|(?![\w/.'\"=-]))")

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if "=" not in match[0] and match.start() > 0 and "_" not in name:
            return match[0]
        return options[name] if value is None else f"{options[name]} {value}"

    return found.sub(option, text)
