"""Workers of the PyTorch peer."""

from collections.abc import Mapping
from pathlib import Path

from oarlock.accept import peers
from oarlock.accept.experiment import Run
from oarlock.accept.workers import Worker

_SCRIPTS = Path(peers.__file__).parent / "torch"


def available(run: Run) -> bool:
    """Whether PyTorch takes part: never in the quick tier; where it is missing the log says so."""
    if run.tier == "quick":
        return False
    try:
        peers.python("torch")
    except peers.PeerMissing as missing:
        run.log(f"PyTorch is left out: {missing}")
        return False
    return True


def start(script: str, env: Mapping[str, str]) -> Worker:
    """A worker that serves `peers/torch/<script>.py` in PyTorch's own environment."""
    return Worker.start(_SCRIPTS / f"{script}.py", env=env, python=peers.python("torch"))
