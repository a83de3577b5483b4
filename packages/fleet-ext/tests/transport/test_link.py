"""The two ends of a connection, without a mesh around them."""

import socket

import pytest
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.link import Connection, Outgoing
from oarlock.fleet_ext.transport.work import Work

HEADER = wire.Header(kind=wire.FAREWELL, group=0, tag=0, length=0)
MORE_THAN_A_SOCKET_HOLDS = memoryview(bytes(64 << 20))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("raises", (False, True), ids=("told", "telling-fails"))
def test_who_waits_for_a_send_is_told_that_the_connection_broke(raises):
    told = []

    def lost(error):
        told.append(error)
        if raises:
            raise RuntimeError("not the connection's fault")

    ours, theirs = socket.socketpair()
    outgoing = Outgoing(Connection(ours), "sends", lost)
    under_way, queued = Work[None](), Work[None]()
    outgoing.send(HEADER, MORE_THAN_A_SOCKET_HOLDS, under_way)
    outgoing.send(HEADER, None, queued)
    assert not under_way.done()

    theirs.close()
    for work in (under_way, queued):
        with pytest.raises(ConnectionError):
            work.wait(timeout=3)
    assert len(told) == 1
    behind = Work[None]()
    outgoing.send(HEADER, None, behind)
    with pytest.raises(ConnectionError):
        behind.wait(timeout=3)
    outgoing.close(farewell=False)
