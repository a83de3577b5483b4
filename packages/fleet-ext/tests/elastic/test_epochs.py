"""Who trains next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oarlock.fleet_ext.elastic import Epoch, Size, following

NODES = "abcdefg"


def arrived(nodes):
    return {node: number for number, node in enumerate(nodes)}


@pytest.mark.parametrize(
    ("before", "there", "lost", "size", "after"),
    (
        (None, "cab", "", (2, 4), "cab"),  # in the order of arrival
        (None, "a", "", (2, 4), None),
        ("abc", "abc", "", (2, 3), "abc"),
        ("abc", "abcd", "b", (2, 3), "adc"),  # a spare takes the rank of who is lost
        ("abc", "acd", "", (2, 3), "adc"),
        ("abc", "abc", "b", (2, 3), "ac"),  # without one, the last rank moves
        ("abcd", "abcd", "ab", (2, 4), "dc"),
        ("abc", "abc", "ab", (2, 3), None),
        ("ab", "abcd", "", (2, 3), "abc"),  # who waits joins
        ("abcd", "abcd", "", (2, 3), "abc"),  # scaled down
        ("abcd", "abcd", "a", (2, 3), "dbc"),
    ),
)
def test_ranks_of_the_next_epoch(before, there, lost, size, after):
    current = Epoch(7, tuple(before)) if before else None
    found = following(current, arrived(there), lost, Size(least=size[0], most=size[1]))
    assert (found and "".join(found.nodes)) == after
    assert found is None or found.number == (8 if before else 1)


@given(
    st.lists(st.sampled_from(NODES), unique=True), st.lists(st.sampled_from(NODES), unique=True),
    st.sets(st.sampled_from(NODES)), st.integers(1, 4), st.integers(0, 3),
)  # fmt: skip
def test_every_epoch_is_sound(before, there, lost, least, more):
    size = Size(least=least, most=least + more)
    current = Epoch(1, tuple(before))
    alive = set(there) - lost
    found = following(current, arrived(there), lost, size)
    assert (found is None) == (len(alive) < least)
    if found is not None:
        assert set(found.nodes) <= alive and len(set(found.nodes)) == len(found.nodes) == min(
            size.most, len(alive)
        )
        stay = [rank for rank, node in enumerate(before[: len(found.nodes)]) if node in alive]
        assert all(found.nodes[rank] == before[rank] for rank in stay)
        assert Epoch.unpack(found.pack()) == found


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="least must be"):
        Size(least=3, most=2)
