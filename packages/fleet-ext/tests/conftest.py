"""Helpers of tests lie beside them."""

import sys
from pathlib import Path

import pytest

for folder in (
    "agent",
    "checkpoints",
    "compress",
    "elastic",
    "paddle_cpu",
    "parameter_server",
    "rendezvous",
    "serving",
    "transport",
):
    sys.path.insert(0, str(Path(__file__).parent / folder))


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """A server of etcd, whose users have namespaces of their own."""
    from etcd_process import Etcd, etcd_program

    server = Etcd(etcd_program(), tmp_path_factory.mktemp("etcd"))
    yield server
    server.stop()


@pytest.fixture
def hosts():
    """Five, in network namespaces."""
    from oarlock.fleet_ext import lab

    why = lab.unavailable()
    if why is not None:
        pytest.skip(f"no network namespaces: {why}")
    with lab.Lab(hosts=5) as made:
        yield made.hosts
