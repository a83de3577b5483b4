"""The page: what it says of a store's keys, to whom, and that names stay text."""

import json
import re
import shutil
import subprocess
import sys

import httpx
import pytest
from oarlock.fleet_ext.dashboard import serve, snapshot
from oarlock.fleet_ext.dashboard.app import read_report
from oarlock.fleet_ext.dashboard.snapshot import BINS, curve
from oarlock.fleet_ext.elastic import Epoch
from oarlock.fleet_ext.serving import records
from oarlock.fleet_ext.telemetry import Events
from oarlock.fleet_ext.telemetry.publishing import NODES, SERIES

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


REPORT = {"kept": 0.9, "faults": [{"kind": "kill", "gap": 0.5, "noticed": None}, {"kind": "stop", "gap": 1}]}  # fmt: skip


@pytest.fixture
def page(store):
    made = serve(store, port=0, title="the job", report=REPORT)
    yield made
    made.close()


def fill(store, evil="odd"):
    store.set("elastic/epoch", Epoch(3, ("a", "b", "c")).pack())
    store.set("elastic/size", b'{"least": 2, "most": 3}')
    for name in ("a", "b", "spare", evil, "hung"):
        store.set(f"elastic/nodes/{name}", b"1")
    store.set("elastic/lost/hung", b"")
    store.set(NODES + "a", json.dumps({"step": 7, "rate": 2.5, "loss": 0.5, "time": 30.0}).encode())
    store.set(NODES + "gone", json.dumps({"step": 3, "rate": None, "loss": None, "time": 9.0}).encode())  # fmt: skip
    store.set(SERIES + "a", json.dumps([[10.0, 2.0, 0.9], [20.0, 3.0, None]]).encode())
    Events(store, evil).write("lost", f"{evil} is gone")


def test_who_is_in_the_job(store):
    assert snapshot(store)["training"] is None and snapshot(store)["serving"] is None
    fill(store)
    found = snapshot(store)
    states = {one["node"]: (one["state"], one["rank"]) for one in found["training"]["nodes"]}
    assert states == {
        "a": ("training", 0), "b": ("training", 1), "c": ("lost", 2), "spare": ("spare", None),
        "odd": ("spare", None), "hung": ("lost", None), "gone": ("lost", None),
    }  # fmt: skip
    assert found["training"]["epoch"] == 3 and not found["training"]["done"]
    assert found["training"]["curve"] == [[10.0, 2.0, 0.9], [20.0, 3.0, None], [30.0, 2.5, 0.5]]
    assert found["events"][0]["text"] == "odd is gone"
    store.set("elastic/done", b"")
    assert snapshot(store)["training"]["done"]


def test_an_epoch_says_who_is_no_longer_there(store):
    events = Events(store, "a")
    for number, nodes in enumerate((["a", "b", "c"], ["a", "d", "c"], ["a"])):
        events.write("epoch", "", epoch=number, nodes=nodes)
        events.write("note", "")
    assert [one["lost"] for one in snapshot(store)["events"]][::2] == [[], ["b"], ["d", "c"]]


def test_what_is_served(store):
    store.set(records.WANTED, b"2")
    for id, state, slot in (("r1", "ready", 1), ("r0", "ready", 0), ("s", "spare", None)):
        one = records.Replica(id=id, node="n", host="h", port=5, state=state, slot=slot)
        store.set(records.REPLICAS + id, records.pack(one))
    for name in ("x", "y"):
        report = records.Report(address="h:1", answered=4, uses={"r0": records.Use(state="ready", running=2)})  # fmt: skip
        store.set(records.ROUTERS + name, records.pack(report))
    found = snapshot(store)["serving"]
    assert [(one["id"], one["running"]) for one in found["replicas"]] == [("r0", 4), ("r1", 0), ("s", 0)]  # fmt: skip
    assert [one["answered"] for one in found["routers"]] == [4, 4]


def test_a_curve_has_a_bounded_number_of_points_and_the_fastest_node_counts():
    many = [[float(at), 1.0 + at % 2, 1.0] for at in range(5000)]
    found = curve({"a": many, "b": [[2500.0, 9.0, None]]}, {})
    assert len(found) <= BINS and max(one[1] for one in found) == 9.0
    assert found == sorted(found, key=lambda one: one[0])


def test_rubbish_in_the_store_is_left_out(store):
    fill(store)
    for key in (NODES + "a", SERIES + "a", "elastic/size"):
        store.set(key, b"\xff{")
    store.set(SERIES + "gone", b'[1, [2], ["x", 1, 2], [1, 2, "nan"], [NaN, 1, 1], [true]]')
    found = snapshot(store)["training"]
    assert found["curve"] == [[1, 2, None]] and found["size"] is None
    assert found["nodes"][0]["step"] is None


def test_the_page_is_whole_and_runs_nothing_of_others(page):
    answer = httpx.get(page.url)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and policy.count("sha256-") == 2  # fmt: skip
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org)", answer.text)
    # Markup is made of text nowhere.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|DOMParser|setAttribute\(.on", answer.text)  # fmt: skip


def test_data_are_json_for_those_who_call_by_a_local_name(page, store):
    fill(store, evil=EVIL)
    answer = httpx.get(page.url + "/data")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = answer.json()
    assert found["title"] == "the job" and found["report"] == REPORT
    assert EVIL in {one["node"] for one in found["training"]["nodes"]}
    assert httpx.get(page.url + "/data", headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(page.url + "/other").status_code == 404
    assert httpx.post(page.url + "/data").status_code == 405


def test_a_store_that_is_away_is_told(page, server):
    server.close()
    answer = httpx.get(page.url + "/data", timeout=30.0)
    assert answer.status_code == 503 and "store" in answer.json()["error"]


def test_names_are_shown_as_text(page, store, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium to look at the page with")
    fill(store, evil=EVIL)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
               "--virtual-time-budget=3000", "--dump-dom", page.url]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert "<title>the job</title>" in text and "owned" in text  # it ran, and shows the name
    assert "<img" not in text and text.count("<script") == 1 and "&lt;img src=x" in text
    assert ">training</td>" in text and ">spare</td>" in text and ">lost</td>" in text
    assert ">kind kill, gap 0.5; kind stop, gap 1</td>" in text


def test_bad_options_are_told(tmp_path):
    path = tmp_path / "report.json"
    for text, words in (("{", "JSON file"), ("[]", "JSON object")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_report(path)
    path.write_text('{"kept": 1}')
    assert read_report(path) == {"kept": 1}
    app = (
        "import typer; from oarlock.fleet_ext.cli.dashboard import dashboard; typer.run(dashboard)"
    )
    done = subprocess.run(
        [sys.executable, "-c", app, "--store", "nowhere", "--token-file", str(path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "host:port" in done.stderr
