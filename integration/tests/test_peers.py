"""Peers have environments of their own, are pinned, and say how to install them."""

import json
import subprocess

import pytest
from pydantic import ValidationError

from oarlock.accept import peers
from oarlock.accept.peers import InstallFailed, Peer, PeerMissing


@pytest.fixture
def fake(monkeypatch, cache):
    """A peer without requirements, which needs no network."""
    known = {"fake": peer(name="fake")}
    monkeypatch.setattr(peers, "load", lambda: known)
    return known


def peer(**changes) -> Peer:
    running = ".".join(peers.platform.python_version_tuple()[:2])
    entry = {"name": "fake", "summary": "", "requirements": (), "python": running, "size_mb": 1}
    return Peer(**entry | changes)


def test_the_real_entries_are_pinned():
    torch = peers.find("torch")
    assert "torch==2.13.0" in torch.requirements
    with pytest.raises(ValueError, match="no peer 'torhc'; did you mean torch"):
        peers.find("torhc")


@pytest.mark.parametrize("requirement", ["torch", "torch>=2", "torch==2.*", "torch == 2"])
def test_loose_requirements_are_refused(requirement):
    with pytest.raises(ValidationError):
        peer(requirements=(requirement,))


def test_install(fake):
    assert peers.state("fake") == "absent"
    with pytest.raises(PeerMissing, match="`oarlock-accept peers install fake` makes it"):
        peers.python("fake")
    with pytest.raises(PeerMissing):
        peers.versions("fake")
    python = peers.install("fake")
    assert peers.python("fake") == python
    assert peers.state("fake") == "ready"
    assert list(peers.versions("fake")) == ["python"]
    inside = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert inside.stdout.strip() == str(python.parent.parent)


def test_an_unfinished_installation_is_made_anew(fake):
    where = peers.folder(fake["fake"])
    where.mkdir(parents=True)
    (where / "rest").touch()
    assert peers.state("fake") == "begun"
    with pytest.raises(PeerMissing):
        peers.python("fake")
    peers.install("fake")
    assert not (where / "rest").exists()
    (where / "kept").touch()
    peers.install("fake")
    assert (where / "kept").exists(), "a finished one is left alone"


def test_a_failed_installation_is_explained(fake, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    fake["fake"] = peer(requirements=("no-such-distribution==1.0",))
    with pytest.raises(InstallFailed, match="no-such-distribution"):
        peers.install("fake")
    assert peers.state("fake") == "begun"
    fake["fake"] = peer(python="3.4")
    with pytest.raises(InstallFailed, match=r"needs CPython 3\.4"):
        peers.install("fake")


def test_the_place_changes_with_the_requirements():
    places = {peers.folder(peer(requirements=(text,))) for text in ("a==1", "a==2")}
    assert len(places) == 2


def test_the_command_line(fake, accept):
    absent = accept("peers", "list")
    assert (absent.exit_code, "absent" in absent.stdout) == (0, True)
    assert accept("peers", "install", "fake").exit_code == 0
    assert "ready" in accept("peers", "list").stdout
    wrong = accept("peers", "install", "fade")
    assert (wrong.exit_code, wrong.stderr) == (2, "error: no peer 'fade'; did you mean fake?\n")


def test_the_record_is_json(fake):
    python = peers.install("fake")
    record = json.loads((python.parent.parent / "peer.json").read_text())
    assert record["requirements"] == []
