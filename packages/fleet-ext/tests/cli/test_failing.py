"""Whose failure an error is."""

from oarlock.fleet_ext.failing import consequence_of
from oarlock.fleet_ext.transport import Aborted, PeerLost


def behind(cause):
    try:
        raise RuntimeError("a hook failed") from cause
    except RuntimeError as error:
        return error


def test_an_error_follows_from_a_lost_rank_or_from_another_ranks_abort():
    for cause in (PeerLost(1, "gone"), Aborted("rank 1 said: enough", elsewhere=True)):
        assert consequence_of(cause) is cause
        assert consequence_of(behind(cause)) is cause


def test_an_abort_of_this_ranks_own_is_its_own_failure_whatever_it_says():
    own = Aborted("rank 1 said: enough")
    assert consequence_of(own) is None
    assert consequence_of(behind(own)) is None
    assert consequence_of(ValueError("no")) is None
    assert consequence_of(None) is None
