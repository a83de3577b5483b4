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


@pytest.mark.parametrize(
    ("before", "there", "resting", "size", "after"),
    (
        ("abc", "abcd", "b", (2, 3), "adc"),  # a spare takes the rank of who is put out
        ("abc", "abc", "b", (2, 3), "ac"),
        ("abc", "abc", "b", (3, 3), "abc"),  # too few without it
        ("ac", "abc", "bc", (2, 3), "ac"),  # who is in stays before another that rests
        ("ac", "abc", "b", (2, 3), "ac"),
        ("a", "abc", "bc", (1, 3), "a"),
    ),
)
def test_who_rests_counts_only_where_there_are_too_few(before, there, resting, size, after):
    found = following(
        Epoch(1, tuple(before)), arrived(there), "", Size(least=size[0], most=size[1]), resting
    )
    assert found is not None and "".join(found.nodes) == after


def test_a_node_that_came_again_has_not_stayed():
    epoch = following(None, arrived("abc"), "", Size(least=1, most=3))
    assert epoch is not None and epoch.staying({"a": 0, "c": 7}) == ["a"]
    assert epoch.staying({"a": 3, "d": 4}) == []


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="least must be"):
        Size(least=3, most=2)
