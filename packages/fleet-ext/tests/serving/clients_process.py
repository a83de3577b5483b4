"""Clients of a router as a process: they ask until a file is there, and it says what was wrong, and who is ready."""

import json
import sys
import time
from pathlib import Path

import httpx
from fleets import Clients, metric, until
from oarlock.fleet_ext.rendezvous import TcpStore
from oarlock.fleet_ext.serving import Fleet


def routed():
    """Whether the router listens, and knows somebody who answers."""
    try:
        return httpx.get(url + "/router/health").status_code == 200
    except httpx.ConnectError:
        return False


url, host, port, job, token, end = sys.argv[1:]
until(routed, "a router")
fleet = Fleet(TcpStore(host, int(port), job=job, token=token))
clients = Clients(url)
try:
    over = False
    while not over:
        over = Path(end).exists()
        ready = [one.node for one in fleet.view().replicas.values() if one.state == "ready"]
        print(json.dumps({"asked": clients.asked, "wrong": clients.wrong, "ready": sorted(ready)}), flush=True)  # fmt: skip
        time.sleep(0.1)
finally:
    clients.close()
lost = metric(url, "oarlock_router_lost_attempts_total")
print(json.dumps({"asked": clients.asked, "wrong": clients.wrong, "lost": lost}), flush=True)
