"""`oarlock-fleet tables`, by itself: it is one command of `oarlock-fleet`."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from table_servers import TOKEN, counting

LAYOUT = """
shards: 8
tables:
  rows: {kind: sparse, width: 2, optimizer: {kind: sgd, rate: 1.0}, hot_rows: 16}
  array: {kind: dense, shape: [3, 5], optimizer: {kind: sgd, rate: 1.0}}
"""
PROGRAM = "import typer; from oarlock.fleet_ext.cli.serve_tables import tables; typer.run(tables)"


@pytest.fixture
def command(tmp_path):
    path = tmp_path / "tables.yaml"
    path.write_text(LAYOUT)
    started = []

    def start(store, *options, token=TOKEN):
        started.append(subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--store", store, "--tables", str(path), *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OARLOCK_STORE_TOKEN": token},
        ))  # fmt: skip
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def test_servers_that_are_told_to_end_give_their_shards_away(servers, command, tmp_path):
    one = servers(counting())
    store = f"127.0.0.1:{one.store_server.address[1]}"
    processes = {
        name: command(store, "--name", name, "--folder", str(tmp_path / name)) for name in "ab"
    }
    for name, process in processes.items():
        assert process.stdout.readline().startswith(f"{name}.")
    one.until_copied("a", "b")
    client, keys = one.client(), np.arange(100)
    client.push("rows", keys, np.ones((100, 2))).wait()
    before = client.pull("rows", keys).wait()
    processes["a"].send_signal(signal.SIGTERM)
    assert processes["a"].wait(60.0) == 0
    assert not one.led_by("a")
    np.testing.assert_array_equal(client.pull("rows", keys).wait(), before)


@pytest.mark.parametrize(
    ("store", "options", "token", "words"),
    (
        ("somewhere", (), TOKEN, "must be host:port"),
        ("127.0.0.1:1", (), "", "OARLOCK_STORE_TOKEN"),
        (None, (), TOKEN, "folder must be given"),
    ),
)
def test_what_is_wrong_is_said(servers, command, store, options, token, words):
    one = servers(counting())
    process = command(store or f"127.0.0.1:{one.store_server.address[1]}", *options, token=token)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and words in " ".join(said.split())
