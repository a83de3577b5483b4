"""The one version of DeePMD-kit that this release knows."""

from importlib.metadata import PackageNotFoundError, version

VERSION = "3.2.0"


def require() -> None:
    """Raises ValueError unless this DeePMD-kit is installed."""
    try:
        found = version("deepmd-kit")
    except PackageNotFoundError:
        found = "none"
    if found != VERSION:
        raise ValueError(
            f"deepmd-kit {VERSION} is needed, {found} is installed: pip install deepmd-kit=={VERSION}"
        )
