"""What is said, and that it can be sent."""

import pickle

import pytest
from oarlock.fleet_ext.transport import Aborted, NotConnected, PeerLost, TimedOut


@pytest.mark.parametrize(
    ("error", "words"),
    (
        (PeerLost(3, "gone", left=True), "rank 3 is lost: gone"),
        (
            TimedOut("all_reduce", 2.0, [1, 2], [2]),
            "rank 2 is not answering .*; rank 1 is not there yet",
        ),
        (TimedOut("all_reduce", 2.0, [0, 1], []), "ranks 0, 1 are not there yet"),
        (TimedOut("all_reduce", 2.0, [], []), "the link is slow"),
        (NotConnected("ranks are missing", [1]), "ranks are missing"),
        (Aborted("aborted: enough"), "enough"),
    ),
)
def test_errors_have_words_and_come_back_from_a_pickle(error, words):
    copy = pickle.loads(pickle.dumps(error))
    with pytest.raises(type(error), match=words):
        raise copy
    assert vars(copy) == vars(error)
