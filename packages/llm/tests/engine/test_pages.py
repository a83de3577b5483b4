"""Pages: who holds them, who finds them, when they go."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.llm.engine.pages import Holding, OutOfPages, PageTable


def written(table: PageTable, tokens: list[int], adapter: int = -1) -> Holding:
    """A text that was computed and published whole."""
    holding = table.find(tokens, adapter)
    table.extend(holding, len(tokens))
    table.publish(holding, tokens, len(tokens))
    return holding


def test_a_text_finds_the_whole_pages_of_another():
    table, text = PageTable(8), list(range(40))
    first = written(table, text)
    second = table.find(text[:35])
    assert second.pages == first.pages[:2]  # 32 tokens; the third page is not full
    assert table.find([9, *text[1:]]).pages == []
    table.release(first)
    assert table.available == 8 - 2  # the second text uses two of the pages still
    table.release(second)
    assert table.available == 8


def test_a_table_can_forget():
    table = PageTable(8, share=False)
    holding = written(table, list(range(40)))
    assert table.find(list(range(40))).pages == []
    table.release(holding)
    assert table.available == 8


def test_the_least_recently_used_pages_go_first():
    table = PageTable(4)
    old, new = list(range(32)), list(range(100, 132))
    for text in (old, new, old):
        table.release(written(table, text))
    third = table.find([7] * 32)
    table.extend(third, 32)  # takes the two pages of `new`
    assert table.find(new).pages == [] and len(table.find(old).pages) == 2


def test_of_a_dropped_path_the_end_goes_first():
    table = PageTable(3)
    table.release(written(table, list(range(48))))
    holding = table.find([7] * 16)
    table.extend(holding, 16)
    assert len(table.find(list(range(48))).path) == 2


def test_equal_pages_of_two_running_texts_become_one():
    table, text = PageTable(8), list(range(32))
    holdings = [Holding(), Holding()]
    for holding in holdings:
        table.extend(holding, 32)
    for holding in holdings:
        table.publish(holding, text, 32)
    assert holdings[0].pages == holdings[1].pages and table.available == 6


def test_a_fork_shares_the_path_and_copies_the_rest():
    table, text = PageTable(8), list(range(40))
    first = written(table, text)
    second, copies = table.fork(first)
    assert second.pages[:2] == first.pages[:2]
    assert copies == [(first.pages[2], second.pages[2])] and first.pages[2] != second.pages[2]


def test_nothing_is_taken_where_there_is_not_enough():
    table = PageTable(2)
    holding = Holding()
    table.extend(holding, 20)
    other = Holding()
    with pytest.raises(OutOfPages):
        table.extend(other, 1)
    with pytest.raises(OutOfPages):
        table.fork(holding)
    assert other.pages == [] and len(holding.pages) == 2


def test_what_is_remembered_of_texts_that_ended_is_bounded():
    table = PageTable(6)
    for number in range(500):
        table.release(written(table, [number % 3] * 16))
    assert len(table._oldest) <= 12 and table.available == 6
    holding = table.find([7] * 16)
    table.extend(holding, 96)  # everything that is remembered goes
    assert table.available == 0


def test_an_adapter_has_a_tree_of_its_own():
    table, text = PageTable(8), list(range(32))
    for adapter in (-1, 3):
        assert table.find(text, adapter).pages == []
        table.release(written(table, text, adapter))
    plain, adapted = table.find(text), table.find(text, 3)
    assert len(plain.path) == len(adapted.path) == 2 and not set(plain.pages) & set(adapted.pages)
    fork, _ = table.fork(adapted)
    table.extend(fork, 48)
    table.publish(fork, list(range(48)), 48)
    assert (
        len(table.find(list(range(48)), 3).path) == 3 and len(table.find(list(range(48))).path) == 2
    )


def test_a_forgotten_adapter_s_pages_are_free():
    table = PageTable(8)
    for number in (0, 1, 2):
        table.release(written(table, [number] * 16, adapter=5))
    table.release(written(table, [0] * 16))
    table.forget(5)
    table.forget(9)  # never was
    assert table.available == 8 and table.find([0] * 16, 5).pages == []
    assert len(table.find([0] * 16).path) == 1
    table.extend(Holding(), 7 * 16)
    assert table.available == 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_pages_are_neither_lost_nor_given_twice(seed):
    """Random texts of few letters and adapters come, grow, fork and go; every page has one content at most."""
    rng = np.random.default_rng(seed)
    table, running = PageTable(12), []
    content: dict[int, tuple[int, tuple[int, ...]]] = {}  # what each page was written with
    for _ in range(80):
        action = rng.integers(5)
        if action == 0:
            text = rng.integers(0, 2, rng.integers(1, 70)).tolist()
            text = [token // 2 for token in text] if rng.random() < 0.5 else text
            holding = table.find(text, adapter := int(rng.integers(-1, 1)))
            for i, page in enumerate(holding.pages):
                assert content[page] == (holding.adapter, tuple(text[: 16 * (i + 1)]))
            try:
                table.extend(holding, len(text))
            except OutOfPages:
                table.release(holding)
                continue
            found = len(holding.path)
            for i, page in enumerate(holding.pages[found:], found):
                content[page] = (adapter, tuple(text[: 16 * (i + 1)]))
            table.publish(holding, text, len(text))
            running.append((holding, text))
        elif running and action == 1:
            holding, _ = running.pop(rng.integers(len(running)))
            table.release(holding)
        elif running and action == 2:
            holding, text = running[rng.integers(len(running))]
            try:
                copy, copies = table.fork(holding)
            except OutOfPages:
                continue
            content |= {target: content[source] for source, target in copies}
            running.append((copy, list(text)))
        elif action == 3 and not any(holding.adapter == 0 for holding, _ in running):
            table.forget(0)
        for holding, text in running:
            for i, page in enumerate(holding.pages):
                assert content[page] == (holding.adapter, tuple(text[: 16 * (i + 1)]))
        own = [page for holding, _ in running for page in holding.own]
        shared = {node.page for holding, _ in running for node in holding.path}
        assert len(own) == len(set(own)) and not shared & set(own)
        assert table.available == 12 - len(own) - len(shared)
    for holding, _ in running:
        table.release(holding)
    assert table.available == 12
