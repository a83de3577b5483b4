"""A store of their own for each test."""

import pytest
from oarlock.fleet_ext.rendezvous import StoreServer, TcpStore


@pytest.fixture
def server():
    made = StoreServer(job="test", token="token")
    yield made
    made.close()


@pytest.fixture
def store(server):
    with TcpStore("127.0.0.1", server.address[1], job="test", token="token", timeout=1.0) as made:
        yield made
