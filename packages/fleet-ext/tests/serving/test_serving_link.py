"""Replicas on hosts of a lab, of which one is cut off: no request fails."""

import sys
from pathlib import Path

from fleets import SCRIPT, until
from said import last

STORE, ROUTER, JOB, TOKEN = 6200, 8000, "serving", "token"
MORE = 12  #: requests


def test_no_request_fails_when_a_replicas_link_is_cut(hosts, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    first, *others, front = hosts
    options = ["--job", JOB, "--token-file", str(tmp_path / "token")]
    first.start([sys.executable, "-m", "oarlock.fleet_ext.rendezvous", "--host", first.address,
                 "--port", str(STORE), *options], log=tmp_path / "store.log")  # fmt: skip
    until(lambda: (tmp_path / "store.log").read_text(), "the store's first word")

    def serve(host, name, *more):
        store = ["--store", f"{first.address}:{STORE}", *options]
        command = [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "serve", "--node", name]
        return host.start([*command, *store, *more], log=tmp_path / f"{name}.log")

    names = ("a", "b", "c")
    replica = ["--", sys.executable, SCRIPT, "{port}", "{host}"]
    started = [
        serve(host, name, "--no-router", "--address", host.address, "--replicas", "2", "--capacity", "1", *replica)
        for name, host in zip(names, others, strict=True)
    ]  # fmt: skip
    started.append(serve(front, "router", "--host", front.address, "--port", str(ROUTER)))
    script = Path(__file__).with_name("clients_process.py")
    clients = front.start(
        [sys.executable, str(script), f"http://{front.address}:{ROUTER}", first.address, str(STORE), JOB, TOKEN,
         str(tmp_path / "end")],
        log=tmp_path / "clients.log",
    )  # fmt: skip

    def until_ready(holds, what):
        def now():
            assert clients.poll() is None, clients.log.read_text()
            return last(clients) and holds(last(clients)["ready"])

        until(now, what)

    def until_more():
        wanted = last(clients)["asked"] + MORE
        until(lambda: last(clients)["asked"] >= wanted, f"{MORE} more requests")

    until_ready(lambda nodes: len(nodes) == 2, "two replicas")
    until_more()
    cut = last(clients)["ready"][0]
    others[names.index(cut)].link(False)
    until_ready(lambda nodes: len(nodes) == 2 and cut not in nodes, "another host's turn")
    until_more()
    others[names.index(cut)].link(True)
    until_more()
    (tmp_path / "end").touch()
    assert clients.wait(60.0) == 0, clients.log.read_text()
    found = last(clients)
    assert found["wrong"] == [] and found["asked"] > 3 * MORE
    assert found["lost"] > 0  # some requests were at the replica that was cut off
    assert all(one.poll() is None for one in started)
