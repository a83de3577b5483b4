"""Which version of this package runs."""

from importlib import metadata

NAME = "oarlock-llm"


def version() -> str:
    """Of the installed distribution; "0+source" where the sources run without one."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return "0+source"
