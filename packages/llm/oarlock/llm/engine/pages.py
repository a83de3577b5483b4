"""Which pages hold whose keys and values: a pool, and a tree of prefixes whose pages can be shared.

A full page stands for the 16 tokens it holds after all the tokens of the pages before it. So pages form a tree,
in which texts that begin alike share the path of their common beginning. Pages that no running text uses stay
in the tree until their memory is needed; the least recently used leaf goes first. Each adapter has a tree of its
own, since what it computes of a token is its own.

Source: the idea of RadixAttention, 2312.07104.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Sequence

from oarlock.native.decoder import PAGE


class OutOfPages(Exception):
    """All pages are in use by running texts."""


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """A full page in the tree.

    Args:
        tokens: the 16 it holds.
        page: its number.
        parent: None for the root.
        users: running texts that use it.
        used: when it was used last.
    """

    tokens: tuple[int, ...]
    page: int
    parent: "Node | None"
    children: dict[tuple[int, ...], "Node"] = dataclasses.field(default_factory=dict)
    users: int = 0
    used: int = 0


@dataclasses.dataclass(slots=True, eq=False)
class Holding:
    """The pages of one text, from its beginning: a path in the tree of its adapter, then pages of its own."""

    path: list[Node] = dataclasses.field(default_factory=list)
    own: list[int] = dataclasses.field(default_factory=list)
    adapter: int = -1

    @property
    def pages(self) -> list[int]:
        """Numbers of all pages in their order."""
        return [node.page for node in self.path] + self.own


class PageTable:
    """All pages of a cache.

    Args:
        count: pages that there are.
        share: whether texts may find pages of others; False for a table that forgets.
    """

    def __init__(self, count: int, *, share: bool = True) -> None:
        self.count, self.share = count, share
        self._free = list(range(count - 1, -1, -1))
        self._roots: dict[int, Node] = {}  # by adapter
        self._clock = itertools.count(1)
        self._unused = 0  # nodes of the tree without users
        #: Leaves without users by when they were used; entries may be out of date.
        self._oldest: list[tuple[int, int, Node]] = []

    @property
    def available(self) -> int:
        """Pages that can be had: free ones, and those in the tree that no text uses."""
        return len(self._free) + self._unused

    def find(self, tokens: Sequence[int], adapter: int = -1) -> Holding:
        """Take the pages of the longest known beginning of a text, whole pages only."""
        holding, node = Holding(adapter=adapter), self._root(adapter)
        if self.share:
            for start in range(0, len(tokens) - PAGE + 1, PAGE):
                found = node.children.get(tuple(tokens[start : start + PAGE]))
                if found is None:
                    break
                self._use(found)
                holding.path.append(found)
                node = found
        return holding

    def extend(self, holding: Holding, positions: int) -> None:
        """Give a text pages for so many positions.

        Raises:
            OutOfPages: there are not as many; nothing was taken.
        """
        missing = -(-positions // PAGE) - len(holding.path) - len(holding.own)
        if missing > self.available:
            raise OutOfPages
        for _ in range(missing):
            holding.own.append(self._take())

    def publish(self, holding: Holding, tokens: Sequence[int], computed: int) -> None:
        """Put full pages of a text into the tree, where others find them.

        Where another text published the same tokens before, its page is used and the own one freed.

        Args:
            holding: of the text.
            tokens: of the text.
            computed: how many of them have their keys and values in the pages.
        """
        if not self.share:
            return
        while (len(holding.path) + 1) * PAGE <= computed:
            start = len(holding.path) * PAGE
            key = tuple(tokens[start : start + PAGE])
            parent = holding.path[-1] if holding.path else self._root(holding.adapter)
            page = holding.own.pop(0)
            node = parent.children.get(key)
            if node is None:
                node = parent.children[key] = Node(key, page, parent)
                self._unused += 1  # for a moment: it is used below
            else:
                self._free.append(page)
            self._use(node)
            holding.path.append(node)

    def fork(self, holding: Holding) -> tuple[Holding, list[tuple[int, int]]]:
        """A second text with the same beginning: shares the path, and gets copies of the own pages.

        Returns:
            Its pages, and (from, to) of the pages whose contents must be copied.

        Raises:
            OutOfPages: there are not as many; nothing was taken.
        """
        if len(holding.own) > self.available:
            raise OutOfPages
        for node in holding.path:
            self._use(node)
        own = [self._take() for _ in holding.own]
        copy = Holding(list(holding.path), own, holding.adapter)
        return copy, list(zip(holding.own, copy.own))

    def release(self, holding: Holding) -> None:
        """The text has ended: its own pages are free, those in the tree stay while there is room."""
        self._free += holding.own
        for node in reversed(holding.path):
            node.users -= 1
            node.used = next(self._clock)
            self._unused += node.users == 0
            self._note(node)
        holding.path, holding.own = [], []

    def forget(self, adapter: int) -> None:
        """Free the pages of an adapter's tree, which no text uses."""
        nodes = [self._roots.pop(adapter)] if adapter in self._roots else []
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            if node.parent is not None:
                assert node.users == 0
                node.parent = None  # what is noted of it is out of date
                self._free.append(node.page)
                self._unused -= 1

    def _root(self, adapter: int) -> Node:
        return self._roots.setdefault(adapter, Node((), -1, None))

    def _use(self, node: Node) -> None:
        self._unused -= node.users == 0
        node.users += 1
        node.used = next(self._clock)

    def _note(self, node: Node) -> None:
        if node.users == 0 and not node.children and node.parent is not None:
            heapq.heappush(self._oldest, (node.used, next(self._clock), node))
            if len(self._oldest) > 2 * self.count:  # no more than `count` are up to date
                self._oldest = [entry for entry in self._oldest if self._is_current(entry)]
                heapq.heapify(self._oldest)

    @staticmethod
    def _is_current(entry: tuple[int, int, Node]) -> bool:
        used, _, node = entry
        free = node.users == 0 and not node.children and node.parent is not None
        return free and used == node.used

    def _take(self) -> int:
        if not self._free:
            self._drop_oldest()
        return self._free.pop()

    def _drop_oldest(self) -> None:
        """Free the least recently used leaf without users. A node's users use its parents as well."""
        entry = heapq.heappop(self._oldest)
        while not self._is_current(entry):
            entry = heapq.heappop(self._oldest)
        node = entry[-1]
        assert node.parent is not None
        del node.parent.children[node.tokens]
        parent, node.parent = node.parent, None
        self._free.append(node.page)
        self._unused -= 1
        self._note(parent)
