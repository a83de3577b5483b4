import pytest
from oarlock.accept.inference.arms import Arm, Opened
from oarlock.accept.inference.measured import Case, Rounds, rounds

CASE = Case(texts=2, prompt=4, new=3)


class Recorded:
    """A worker that answers at once and notes what it was asked."""

    def __init__(self, name, calls, new=3):
        self.name, self.calls, self.new = name, calls, new

    def call(self, function, **arguments):
        self.calls.append((self.name, function))
        if function == "prepare":
            assert arguments == {"texts": 2, "positions": 7}
            return None
        first = 1.0 if self.name == "ours int4" else 3.0
        tokens = [[1] * self.new for _ in arguments["prompts"]]
        return {"first_s": first, "steps_s": [0.1, 0.3], "tokens": tokens}


def arms(calls, **options):
    found = [Arm(library="ours", bits="int4"), Arm(library="llama.cpp", bits="int4")]
    return {
        one.name: Opened(arm=one, worker=Recorded(one.name, calls, **options), about={})
        for one in found
    }


def run(opened, case=CASE):
    return rounds(opened, case, count=2, vocabulary=512, settle_s=0.0)


def test_rounds_take_turns_and_the_first_does_not_count():
    calls = []
    found = run(arms(calls))
    assert [name for name, function in calls if function == "generate"] == [
        "llama.cpp int4",
        "ours int4",
        "ours int4",
        "llama.cpp int4",
        "llama.cpp int4",
        "ours int4",
    ]
    assert found["ours int4"].first_s == [1.0, 1.0]
    assert found["llama.cpp int4"].steps_s == [[0.1, 0.3]] * 2


def test_speeds_are_of_all_texts():
    one = Rounds(CASE, [2.0, 4.0, 3.0], [[0.1, 0.3], [0.2, 0.2], [0.5, 0.5]])
    assert one.decoded == pytest.approx(2 / 0.2)
    assert one.read == pytest.approx(2 * 4 / 3.0)
    assert one.latency() == "first 3000.0 ms (longest 4000.0), then 250.00 ms (p99 500.00)"


def test_arms_that_are_too_slow_for_many_texts_are_left_out():
    opened = arms([])
    few = Arm(library="paddlenlp", bits="fp32", most_texts=1)
    opened[few.name] = Opened(arm=few, worker=Recorded(few.name, []), about={})
    assert set(run(opened)) == {"ours int4", "llama.cpp int4"}


def test_an_arm_that_writes_too_few_tokens_is_an_error():
    with pytest.raises(AssertionError, match="did not write 3 tokens"):
        run(arms([], new=2))
