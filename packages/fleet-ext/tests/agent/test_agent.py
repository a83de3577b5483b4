"""Agents whose processes are killed, stopped, hang, fail, and are told to leave."""

import os
import signal
import time

import numpy as np
import pytest
from oarlock.fleet_ext.agent import NodePlace, enter
from oarlock.fleet_ext.agent.watchdog import state_of
from oarlock.fleet_ext.elastic import Size

from agents import Agents, until
from elastic_node import Model, gradient

STEPS = 150


@pytest.fixture
def agents(tmp_path):
    one = Agents(tmp_path)
    yield one
    one.close()


def undisturbed(ranks):
    """The sum of the weights after each step, of as many ranks that nothing happens to."""
    model, sums = Model(), []
    for step in range(STEPS):
        total = gradient(model.weights, 0, step)
        for rank in range(1, ranks):
            total = total + gradient(model.weights, rank, step)
        model.mean = total / ranks
        model.apply(step)
        sums.append(float(model.weights.sum()))
    return model.weights, sums


@pytest.mark.parametrize("what", (signal.SIGKILL, signal.SIGSTOP))
def test_a_process_that_dies_or_is_stopped_begins_again_and_no_step_is_lost(agents, what):
    for name in ("a", "b"):
        agents.start(name, "--least", "2", "--most", "2")
    agents.until_step("b", 20)
    os.kill(agents.line("b").pid, what)
    begin = time.monotonic()
    until(lambda: agents.line("b").starts == 2, "another process")
    noticed = time.monotonic() - begin
    results = {name: agents.ends(name) for name in ("a", "b")}
    weights, sums = undisturbed(2)
    for name, (code, _, error) in results.items():
        assert code == 0
        said = agents.said(name)
        np.testing.assert_array_equal(np.float32(said[-1]["weights"]), weights)
        assert all(one["sum"] == sums[one["step"]] for one in said if "step" in one)
    assert {one["step"] for one in agents.said("a") if "step" in one} == set(range(STEPS))
    why = "was ended by SIGKILL" if what == signal.SIGKILL else "it was stopped for"
    assert why in results["b"][2] and results["a"][2] == ""
    assert noticed < 30.0  # a look is a tenth of a second, the pause half of one


def test_a_process_that_hangs_is_ended_and_who_waits_for_it_is_not(agents):
    for name in ("a", "hangs"):
        agents.start(name, "--least", "2", "--most", "2", "--hung", "1", operation=2.0)
    results = {name: agents.ends(name) for name in ("a", "hangs")}
    weights, _ = undisturbed(2)
    for name, (code, _, _) in results.items():
        assert code == 0
        np.testing.assert_array_equal(np.float32(agents.said(name)[-1]["weights"]), weights)
    assert results["a"][2] == "" and "does not move" in results["hangs"][2]


def test_a_process_that_moves_again_comes_back_by_itself(agents):
    for name in ("a", "b"):
        agents.start(name, "--least", "2", "--most", "2", "--stopped", "60", "--hung", "60")
    agents.until_step("b", 20)
    pid = agents.line("b").pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: "b.1" not in agents.cluster().there, "its lease is over")
    os.kill(pid, signal.SIGCONT)
    weights, _ = undisturbed(2)
    for name in ("a", "b"):
        code, _, error = agents.ends(name)
        assert code == 0 and error == ""
        np.testing.assert_array_equal(np.float32(agents.said(name)[-1]["weights"]), weights)


def test_a_script_that_always_fails_is_given_up_with_the_reason(agents):
    agents.start(
        "a", "--deaths", "3", command=["sh", "-c", "sleep 600 & echo $!; echo no such file; exit 7"]
    )
    code, out, error = agents.ends("a")
    assert code == 7 and out.count("[a] no such file") == 3
    assert "given up: 3 times in a row" in error and "it ended with 7" in error
    assert "    no such file" in error
    left = [int(line.split()[1]) for line in out.splitlines() if "file" not in line]
    assert len(left) == 3
    until(lambda: all(state_of(pid) in ("", "Z") for pid in left), "what it had started is gone")


def test_nodes_are_drained_and_their_number_is_changed(agents):
    for name in ("a", "b", "c"):
        agents.start(name, "--least", "1", "--most", "2", steps=100_000)
    until(lambda: len(agents.cluster().there) == 3 and agents.cluster().epoch, "three processes")

    def ranks():
        return len(agents.cluster().epoch.nodes)

    assert ranks() == 2 and "spare" in agents.call("status").stdout

    assert agents.call("resize", "--least", "1", "--most", "3").returncode == 0
    until(lambda: ranks() == 3, "three ranks")
    shown = agents.call("status").stdout
    assert "3 ranks, 1 to 3 nodes asked for" in shown and "spare" not in shown

    assert agents.call("resize", "--most", "2").returncode == 0
    until(lambda: ranks() == 2, "two ranks")

    trains = next(name for name in "abc" if agents.cluster().rank(f"{name}.1") == 0)
    agents.processes[trains].terminate()
    code, out, error = agents.ends(trains)
    assert code == 0 and f"SIGTERM: {trains} leaves" in error
    assert "Traceback" not in out and "weights" not in out  # it is not done
    until(lambda: ranks() == 2 and agents.cluster().rank(f"{trains}.1") is None, "the spare one")
    until(lambda: agents.line(trains) is None, "its line is gone")
    for name in set("abc") - {trains}:
        agents.processes[name].send_signal(signal.SIGINT)
    assert [agents.ends(name)[0] for name in sorted(set("abc") - {trains})] == [0, 0]


def test_two_agents_of_a_name_and_other_mistakes_are_told(agents, tmp_path):
    agents.start("a", command=["sleep", "60"])
    until(lambda: agents.line("a"), "the agent")
    again = agents.call("agent", "--node", "a", "--", "sleep", "60")
    assert again.returncode == 1 and "'a' has an agent already" in again.stderr
    assert agents.call("agent", "--node", "b").returncode == 2
    assert "letters, digits" in agents.call("agent", "--node", "b/c", "--", "true").stderr
    assert "least must be" in agents.call("resize", "--least", "3", "--most", "2").stderr
    assert "the first time" in agents.call("resize", "--most", "2").stderr
    (tmp_path / "token").write_text("other")
    assert "another token" in agents.call("status").stderr


def test_a_place_travels_through_the_environment(tmp_path):
    place = NodePlace(
        job="a", store=("10.0.0.1", 70), token="t", node="n.1", size=Size(least=2, most=3), host="h",
        threads=2, progress=tmp_path,
    )  # fmt: skip
    assert NodePlace.read(place.environment()) == place
    with pytest.raises(ValueError, match="oarlock-fleet agent"):
        enter()
