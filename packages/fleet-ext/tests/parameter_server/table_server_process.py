"""A server of tables as a process, which may kill itself at a chosen moment of its twentieth change."""

import itertools
import json
import os
import signal
import sys

from oarlock.fleet_ext.parameter_server import Layout, TableServer, following, leading

from table_servers import store_at

CHANGES = 20


def kill_at(moment):
    """Puts the end of this process before or behind a step of its work."""
    owner, name, behind = {
        "admitted": (leading.Leading, "_begin", False),
        "applied": (leading.Leading, "_pass_on", False),
        "passed on": (leading.Leading, "_pass_on", True),
        "acknowledged by the backup": (leading.Leading, "_settled", True),
        "applied by the backup": (following.Following, "_apply", True),
    }[moment]
    inner, counter = getattr(owner, name), itertools.count(1)

    def outer(*arguments):
        last = next(counter) == CHANGES
        if last and not behind:
            os.kill(os.getpid(), signal.SIGKILL)
        found = inner(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, outer)


given = json.loads(sys.argv[1])
if given["kills"]:
    kill_at(given["kills"])
server = TableServer(
    store_at(given["store"]),
    layout=Layout.unpack(given["layout"].encode()),
    token="token",
    name=given["name"],
    lease=given["lease"],
)
print("ready", flush=True)
server.wait()
