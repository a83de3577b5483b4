"""`run`, from the command line to the evidence: what goes right, and everything that can go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from oarlock.accept import evidence_file, experiment, peers, results, runner, spawn

TWO = """
@experiment("1.1", name="one", tiers=("quick", "full"), title="The first")
def one(run):
    run.log(f"seed {run.seed}")
    print("noise on stdout")
    yield evidence(name="time", notes="Measured twice.")
    yield evidence(name="quality", ours=1.9, target=None, seeds=[run.seed])

@experiment("1.2", name="two", tiers=("quick",), title="The second")
def two(run):
    return [evidence(name="short", ours=4.0)]
"""


def evidence_of(tmp_path, criterion: str, tier: str = "quick") -> dict[str, dict]:
    record = json.loads((tmp_path / "results" / tier / f"{criterion}.json").read_text())
    return {one["name"]: one for one in record["evidence"]}


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]


def test_targets_met(topics, accept, tmp_path):
    topics(TWO)
    done = accept("run", "1.1", "--seed", "3")
    assert done.exit_code == 0, done.stderr
    assert "1 met, 0 short, 1 info, 0 not finished" in done.stdout
    assert "1.1/one: seed 3" in done.stderr
    assert "noise" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.replace(str(tmp_path), "").splitlines())) <= 80
    found = evidence_of(tmp_path, "1.1")
    assert list(found) == ["time", "quality"]
    time_ = found["time"]
    assert (time_["ratio"], time_["verdict"], time_["notes"]) == (2.0, "met", "Measured twice.")
    assert time_["command"].endswith(" run 1.1 --tier quick --seed 3")
    assert {"cpu", "cores", "memory", "limits"} <= set(time_["hardware"])
    assert {"python", "numpy", "oarlock-accept"} <= set(time_["versions"])
    assert time_["commit"] and time_["date"].endswith("Z")
    assert time_["spent"]["peak_memory_mb"] > 10
    assert results.read(tmp_path / "results" / "quick" / "1.1.json")[1].seeds == [3]


def test_one_that_falls_short_makes_the_whole_short(topics, accept):
    topics(TWO)
    done = accept("run", "1")
    assert done.exit_code == 1
    assert "1 met, 1 short, 1 info, 0 not finished" in done.stdout
    assert "not yet in the quick tier: 2 criteria" in done.stdout


def test_runs_merge(topics, accept, tmp_path):
    topics(TWO)
    accept("run", "1.1")
    path = tmp_path / "results" / "quick" / "1.1.json"
    record = json.loads(path.read_text())
    old = record["evidence"][0] | {"name": "renamed since"}
    other = old | {"name": "by another", "experiment": "another"}
    path.write_text(json.dumps(record | {"evidence": [old, other, record["evidence"][1]]}))
    done = accept("run", "1.1", "--only", "one")
    assert list(evidence_of(tmp_path, "1.1")) == ["renamed since", "by another", "quality", "time"]
    assert "1.1/one: kept from an earlier run: renamed since\n" in done.stdout


def test_json(topics, accept):
    topics(TWO)
    done = accept("run", "--json")
    summary = json.loads(done.stdout)
    assert (done.exit_code, summary["exit_code"], summary["tier"]) == (1, 1, "quick")
    states = [(one["name"], one["state"], len(one["evidence"])) for one in summary["experiments"]]
    assert states == [("one", "done", 2), ("two", "done", 1)]


BROKEN = """
@experiment("1.1", name="a-raises", tiers=("quick",), title="A")
def a(run):
    yield evidence(name="before")
    raise KeyError("the reason")

@experiment("1.1", name="b-dies", tiers=("quick",), title="B")
def b(run):
    print("last words", file=sys.stderr, flush=True)
    os.abort()

@experiment("1.1", name="c-exits", tiers=("quick",), title="C")
def c(run):
    sys.exit(5)

@experiment("1.1", name="d-nothing", tiers=("quick",), title="D")
def d(run):
    return []

@experiment("1.1", name="e-nan", tiers=("quick",), title="E")
def e(run):
    yield evidence(ours=float("nan"))

@experiment("1.1", name="f-type", tiers=("quick",), title="F")
def f(run):
    yield {"name": "time"}

@experiment("1.1", name="g-twice", tiers=("quick",), title="G")
def g(run):
    yield evidence(name="same")
    yield evidence(name="same")

@experiment("1.2", name="good", tiers=("quick",), title="Good")
def good(run):
    yield evidence(name="good")
"""


def test_failures_are_explained_and_the_others_go_on(topics, accept, tmp_path):
    topics(BROKEN)
    done = accept("run", "--json")
    summary = json.loads(done.stdout)
    found = {one["name"]: one for one in summary["experiments"]}
    assert done.exit_code == 1
    assert {name: one["state"] for name, one in found.items() if one["state"] != "failed"} == {
        "good": "done"
    }
    messages = {name: one["message"] for name, one in found.items()}
    assert messages["a-raises"].startswith("KeyError: 'the reason'")
    assert 'raise KeyError("the reason")' in messages["a-raises"]
    assert messages["b-dies"].startswith("the process ended with signal 6\n")
    assert "last words" in messages["b-dies"]
    assert "exit code 5" in messages["c-exits"]
    assert messages["d-nothing"].startswith("it gave no evidence")
    assert "ours must be a finite number, got nan" in messages["e-nan"]
    assert "an experiment gives Evidence, got dict" in messages["f-type"]
    assert "evidence named 'same' was given twice" in messages["g-twice"]
    assert list(evidence_of(tmp_path, "1.1")) == ["before", "same"], "what was found is kept"
    assert list(evidence_of(tmp_path, "1.2")) == ["good"]


SLOW = """
@experiment("1.1", name="slow", tiers=("quick",), title="Slow")
def slow(run):
    for part in range(3):
        run.remember(part, lambda: print(f"computed {part}", flush=True))
        run.progress(part, 3, f"part {part}")
    flag = os.environ["FLAG"]
    if not os.path.exists(flag):
        open(flag, "w").close()
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "300")
        time.sleep(300)
    yield evidence(name="slow")
"""


def test_a_timeout_ends_all_processes_and_the_next_run_resumes(
    topics, accept, tmp_path, monkeypatch, cache
):
    topics(SLOW)
    monkeypatch.setenv("FLAG", str(tmp_path / "flag"))
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.5)
    done = accept("run", "1.1", "--timeout", "10")
    assert done.exit_code == 1
    assert "1.1/slow timeout: ended after 10 s" in done.stdout
    assert "computed 2\nits output: " in done.stdout, "what it wrote before it was ended"
    assert [p for p in psutil.process_iter(["cmdline"]) if is_sleep(p, tmp_path / "flag")] == []
    assert children() == []
    log = cache / "runs" / "1.1-slow-quick-seed0" / "log.txt"
    assert log.read_text().splitlines()[:3] == ["computed 0", "computed 1", "computed 2"]
    assert accept("run", "1.1").exit_code == 0
    assert "computed" not in log.read_text()
    assert [one.name for one in log.parent.iterdir()] == ["log.txt"], "finished: forgotten"


def is_sleep(process: psutil.Process, flag: Path) -> bool:
    """Whether it is what the experiment of the test with this flag has started."""
    if process.info["cmdline"] != ["sleep", "300"]:
        return False
    try:
        return process.environ().get("FLAG") == str(flag)
    except psutil.NoSuchProcess:
        return False


def test_a_timeout_shows_nothing_that_the_runner_caused(topics, accept, tmp_path, cache):
    topics("""
        @experiment("1.1", name="busy", tiers=("quick",), title="Busy")
        def busy(run):
            print("busy", flush=True)
            while True:
                run.progress(0, 1)
                time.sleep(0.001)
        """)
    done = accept("run", "1.1", "--timeout", "5")
    assert "ended after 5 s, the limit of this run (--timeout)\nbusy\nits output" in done.stdout
    log = cache / "runs" / "1.1-busy-quick-seed0" / "log.txt"
    assert "BrokenPipeError" not in log.read_text()


def test_changed_sources_are_not_resumed(topics, accept, tmp_path, monkeypatch, cache):
    topics(SLOW)
    monkeypatch.setenv("FLAG", str(tmp_path / "flag"))
    monkeypatch.setattr(runner, "_PATIENCE_S", 0.5)
    accept("run", "1.1", "--timeout", "10")
    topics(SLOW + "\n# changed\n")
    accept("run", "1.1")
    assert "computed 0" in (cache / "runs" / "1.1-slow-quick-seed0" / "log.txt").read_text()


def start(tmp_path, *arguments: str, behind: bool = False) -> subprocess.Popen[str]:
    """The command line as a process of its own, with the experiments of this test.

    Args:
        behind: as a shell starts it in its background, without Ctrl-C.
    """
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
        "from oarlock.accept import cli, experiment, stamp;"
        "stamp._package_folders = tuple; experiment.TOPICS = sys.argv[2]; sys.argv[1:] = sys.argv[3:]; cli.main()"
    )
    path = json.dumps(spawn.search_path())
    words = [*arguments, "--out", str(tmp_path / "results")]
    return subprocess.Popen(
        [sys.executable, "-c", code, path, experiment.TOPICS, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if behind else None,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_done_and_resumes(topics, tmp_path, monkeypatch, cache, number):
    topics(SLOW)
    monkeypatch.setenv("FLAG", str(tmp_path / "flag"))
    process = start(tmp_path, "run", "1.1")
    deadline = time.monotonic() + 60
    while not (tmp_path / "flag").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert psutil.wait_procs(started, timeout=5)[1] == []
    again = start(tmp_path, "run", "1.1")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    log = cache / "runs" / "1.1-slow-quick-seed0" / "log.txt"
    assert "computed" not in log.read_text()
    assert list(evidence_of(tmp_path, "1.1")) == ["slow"]


@pytest.mark.parametrize("behind", [False, True])
def test_an_experiment_does_not_outlive_the_runner(topics, tmp_path, monkeypatch, behind):
    topics(SLOW)
    monkeypatch.setenv("FLAG", str(tmp_path / "flag"))
    process = start(tmp_path, "run", "1.1", behind=behind)
    deadline = time.monotonic() + 60
    while not (tmp_path / "flag").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child = psutil.Process(process.pid).children()
    grandchildren = [one for process in child for one in process.children()]
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs(child, timeout=10)
    for one in grandchildren:  # nobody is left to end this one
        if one.is_running():
            one.kill()
    assert alive == []


NEEDY = """
@experiment("1.1", name="needs-data", tiers=("quick",), title="Needs data", data=("llm/bbh",))
def needs_data(run):
    from oarlock.accept import data
    data.path("llm/bbh", download=False)

@experiment("1.2", name="needs-peer", tiers=("full",), title="Needs a peer", peers=("torch",))
def needs_peer(run):
    from oarlock.accept import peers
    peers.python("torch")

@experiment("1.3", name="wants-peer", tiers=("quick", "full"), title="Wants it", peers=("torch",))
def wants_peer(run):
    yield evidence(notes="Only ours.")
"""


def test_missing_data_names_the_remedy(topics, accept, monkeypatch):
    topics(NEEDY)
    monkeypatch.delenv("OARLOCK_DATA", raising=False)
    done = accept("run", "1.1")
    assert done.exit_code == 2
    assert "1.1/needs-data missing: data set llm/bbh: bbh.zip is not here" in done.stdout
    assert "remedy: set OARLOCK_DATA to a folder that holds llm/bbh/bbh.zip" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_missing_peer_names_the_remedy_and_is_named_in_the_evidence(topics, accept, tmp_path):
    topics(NEEDY)
    needs = accept("run", "1.2", "--tier", "full")
    assert needs.exit_code == 2
    assert "`oarlock-accept peers install torch` makes it" in needs.stdout
    assert accept("run", "1.3").exit_code == 0
    notes = evidence_of(tmp_path, "1.3")["time"]["notes"]
    assert notes.startswith("Only ours. Peer torch is not installed here and was not compared")
    quick = accept("run", "1.3", "--install-peers")
    assert (quick.exit_code, "the quick tier installs nothing" in quick.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1.11"], "no chapter, topic or criterion '1.11'; did you mean 1.1"),
        (["1.1", "--only", "oen"], "no experiment 'oen' among those asked for; did you mean one"),
        (["2.1"], "not yet: no experiment exists for 2.1"),
        (["1.2", "--tier", "full"], "no experiment of 1.2 has the tier full; there are: 1.2/two"),
        (["--tier", "fast"], "'fast' is not one of 'quick', 'full', 'gpu'"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_usage(topics, accept, arguments, message):
    topics(TWO)
    done = accept("run", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_corrupt_evidence_stops_the_run_before_it_begins(topics, accept, tmp_path):
    topics(TWO)
    path = tmp_path / "results" / "quick" / "1.2.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"criterion": "1.2", "evid')
    done = accept("run")
    assert done.exit_code == 2
    assert "1.2.json is not JSON" in done.stderr
    assert "move it away and run `oarlock-accept run 1.2` again" in done.stderr
    assert path.read_text() == '{"criterion": "1.2", "evid'
    assert not (path.parent / "1.1.json").exists(), "nothing was run"


@pytest.mark.parametrize("place", ["results", "results/quick"])
def test_a_folder_that_cannot_be_written_stops_the_run_before_it_begins(
    topics, accept, tmp_path, cache, place
):
    topics(TWO)
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.touch()
    done = accept("run")
    line = f"cannot write evidence to {tmp_path / 'results'}: {file}: Not a directory"
    assert done.exit_code == 2
    assert done.stderr == f"error: {line}; name another folder with --out\n"
    assert not (cache / "runs").exists(), "nothing was run"


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    evidence_file.check_writable(tmp_path / "a" / "b", "quick")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="cannot write evidence to /proc/none: /proc: "):
        evidence_file.check_writable(Path("/proc/none"), "quick")


def test_evidence_that_breaks_meanwhile_is_left_alone(topics, accept, tmp_path):
    path = tmp_path / "results" / "quick" / "1.1.json"
    topics(f"""
        @experiment("1.1", name="one", tiers=("quick",), title="One")
        def one(run):
            os.makedirs({str(path.parent)!r})
            open({str(path)!r}, "w").write("broken")
            yield evidence()
        """)
    done = accept("run")
    assert (done.exit_code, path.read_text()) == (2, "broken")
    assert "1.1.json is not JSON" in done.stderr
    assert children() == []


def test_workers_count_and_start_in_the_experiment(topics, accept, tmp_path):
    folder = topics("""
        from oarlock.accept.workers import Worker

        @experiment("1.1", name="one", tiers=("quick",), title="One")
        def one(run):
            with Worker.start("served_by_worker", env={"A": "7"}) as worker:
                yield evidence(ours=worker.call("value"), notes="x")
        """)
    (folder / "served_by_worker.py").write_text(
        "import os\nblock = bytearray(b'x' * 200 * 2**20)\n"
        "def value():\n    return float(os.environ['A'])\n"
    )
    accept("run")
    found = evidence_of(tmp_path, "1.1")["time"]
    assert found["ours"] == 7.0
    assert found["spent"]["peak_memory_mb"] > 220


def test_a_fork_that_stays_behind_does_not_hold_the_run_up(topics, accept):
    topics("""
        @experiment("1.1", name="one", tiers=("quick",), title="One")
        def one(run):
            yield evidence()
            if os.fork() == 0:
                time.sleep(300)
        """)
    began = time.monotonic()
    assert accept("run").exit_code == 0
    assert time.monotonic() - began < 60


def test_an_installed_peer_is_named_with_its_versions(topics, accept, tmp_path, monkeypatch):
    topics(NEEDY)
    monkeypatch.setattr(peers, "state", lambda name: "ready")
    installed = {"python": "3.11.7", "torch": "2.13.0", "numpy": "1.26.4", "sympy": "1"}
    monkeypatch.setattr(peers, "versions", lambda name: installed)
    accept("run", "1.3")
    found = evidence_of(tmp_path, "1.3")["time"]
    assert found["notes"] == "Only ours."
    assert found["versions"]["peer torch"] == "torch 2.13.0, numpy 1.26.4"


def test_the_working_folder_is_the_same(topics, accept, tmp_path):
    topics("""
        @experiment("1.1", name="one", tiers=("quick",), title="One")
        def one(run):
            yield evidence(notes=os.getcwd())
        """)
    accept("run")
    assert evidence_of(tmp_path, "1.1")["time"]["notes"] == os.getcwd()
