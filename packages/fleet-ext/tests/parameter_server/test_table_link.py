"""Servers of tables on hosts of a lab, of which one is cut off: what was acknowledged stays, and is there once."""

import sys
from pathlib import Path


from said import last
from table_servers import TOKEN, sleep_until

PORT, JOB = 6200, "tables"
TABLES = "{shards: 8, replicas: 2, tables: {rows: {kind: sparse, width: 2, optimizer: {kind: sgd, rate: 1.0}}}}"
MORE = 20  #: pushes


def test_no_acknowledged_push_is_lost_when_a_servers_link_is_cut(hosts, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "tables.yaml").write_text(TABLES)
    first, *others, asking = hosts
    where = ["--job", JOB, "--token-file", str(tmp_path / "token")]
    first.start([sys.executable, "-m", "oarlock.fleet_ext.rendezvous", "--host", first.address,
                 "--port", str(PORT), *where], log=tmp_path / "store.log")  # fmt: skip
    sleep_until(lambda: (tmp_path / "store.log").read_text(), "the store's first word")
    servers = {
        name: host.start(
            [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "tables", "--name", name, "--host", host.address,
             "--store", f"{first.address}:{PORT}", "--tables", str(tmp_path / "tables.yaml"), *where],
            log=tmp_path / f"{name}.log",
        )
        for name, host in zip("abc", others, strict=True)
    }  # fmt: skip
    script = Path(__file__).with_name("table_client_process.py")
    client = asking.start([sys.executable, str(script), first.address, str(PORT), JOB, TOKEN, str(tmp_path / "end")],
                          log=tmp_path / "client.log")  # fmt: skip

    def until(holds, what):
        def now():
            assert client.poll() is None, client.log.read_text()
            return last(client) and holds(last(client))

        sleep_until(now, what)

    def until_more():
        wanted = last(client)["acknowledged"] + MORE
        until(lambda said: said["acknowledged"] >= wanted, f"{wanted} pushes")

    until(lambda said: said["leads"] == ["a", "b", "c"] and said["settled"], "a share for each")
    until_more()
    others[0].link(False)
    until(lambda said: said["copies"] == ["b", "c"] and said["settled"], "copies on two")
    until_more()
    others[0].link(True)
    until(lambda said: said["copies"] == ["a", "b", "c"] and said["settled"], "the server again")
    until_more()
    (tmp_path / "end").touch()
    assert client.wait(60.0) == 0, client.log.read_text()
    found = last(client)
    assert found["counts"] == [found["acknowledged"]] * len(found["counts"])
    assert found["read_as_pulled"] and all(one.poll() is None for one in servers.values())
