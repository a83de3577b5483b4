"""What experiments over slowed links do where network namespaces are not permitted."""

from typing import Any

import pytest

from oarlock.accept.fleet import cluster
from oarlock.accept.fleet.task import Arm
from oarlock.fleet_ext.drill.loopback import Loopback
from oarlock.fleet_ext.job import Place
from oarlock.fleet_ext.lab import Lab, LabUnavailable
from oarlock.fleet_ext.lab.paced import Paced

WANTED = cluster.Network(rate=1e9, delay=0.02, cpus=0.5)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that permits no namespaces."""

    def refuse(self: Lab) -> None:
        raise LabUnavailable("not permitted, says a test")

    monkeypatch.setattr(Lab, "__enter__", refuse)


def without(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr(kind, "__enter__", lambda self: self)
    monkeypatch.setattr(kind, "__exit__", lambda self, *_: None)


def test_namespaces_where_they_are_permitted(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    without(monkeypatch, Lab)
    monkeypatch.setattr(cluster, "shares_unavailable", lambda: None)
    found = cluster.here(WANTED, told.append)
    assert found == WANTED and told == []
    assert found.means == "network namespaces; 0.5 of a core for each rank"
    assert isinstance(cluster._place(found, 4), Lab)


def test_paced_sockets_where_they_are_not(
    monkeypatch: pytest.MonkeyPatch, refusing: None, told: list[str]
) -> None:
    without(monkeypatch, Paced)
    monkeypatch.setattr(cluster, "shares_unavailable", lambda: "no cgroups, says a test")
    found = cluster.here(WANTED, told.append)
    assert (found.rate, found.delay, found.cpus) == (WANTED.rate, WANTED.delay, None)
    assert isinstance(cluster._place(found, 4), Paced)
    assert isinstance(cluster._place(None, 4), Loopback)
    for words in (
        "paced sockets, no network namespaces",
        "not permitted",
        "no limit",
        "no cgroups",
    ):
        assert words in found.means and words in told[0]


def test_nothing_where_sockets_cannot_be_paced_either(
    monkeypatch: pytest.MonkeyPatch, refusing: None, told: list[str]
) -> None:
    def refuse(self: Paced) -> None:
        raise LabUnavailable("no compiler, says a test")

    monkeypatch.setattr(Paced, "__enter__", refuse)
    with pytest.raises(LabUnavailable, match="no compiler"):
        cluster.here(WANTED, told.append)


def test_ranks_behind_paced_sockets_share_no_memory(refusing: None, told: list[str]) -> None:
    try:
        network = cluster.here(WANTED, told.append)
    except LabUnavailable as error:
        pytest.skip(str(error))
    with cluster._place(network, 2) as place:
        given = cluster._environment(Arm(library="ours", way="int4"), 1, place.hosts, 7000)
    assert not Place.read(given).shared
    assert given["GLOO_SOCKET_IFNAME"] == "lo"
