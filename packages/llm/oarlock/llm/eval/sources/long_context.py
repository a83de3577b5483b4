"""Texts of any length in which something must be found, followed or recalled."""

from typing import Any

import numpy as np

from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.sources.reasoning import NAMES

#: Sentences that say nothing about what is asked.
_HAY = (
    "The market opens early and the stalls fill with fruit.",
    "A light wind moves the leaves along the river bank.",
    "Two boats wait at the pier for the tide to turn.",
    "The baker writes the prices of the day on a board.",
    "Rain is expected in the hills before the evening.",
    "Children draw houses and suns on the pavement.",
    "The old clock in the square is four minutes slow.",
    "A train passes the bridge every half hour.",
    "Someone has left a blue umbrella beside the door.",
    "The library keeps its maps in a room on the second floor.",
    "Bees visit the lavender that grows along the wall.",
    "The café has changed its chairs but not its coffee.",
)
_PLACES = "Aarhus Bergen Cadiz Delft Evora Fes Ghent Haifa Izmir Jena Kyoto Lagos Malmo Nara Oslo Porto".split()


def _fill(rng: np.random.Generator, facts: list[str], depths: list[float], characters: int) -> str:
    """Hay of the wanted length with each fact at its depth (0 begin, 1 end)."""
    needed = characters - sum(len(fact) + 1 for fact in facts)
    hay: list[str] = []
    length = 0
    while length < needed:
        hay.append(_HAY[int(rng.integers(len(_HAY)))])
        length += len(hay[-1]) + 1
    for depth, fact in sorted(zip(depths, facts), reverse=True):
        hay.insert(round(depth * len(hay)), fact)
    return " ".join(hay)


def needle(
    data: Finder,
    *,
    characters: list[int],
    depths: list[float],
    items: int,
    seed: int,
    keys: int = 1,
) -> list[dict[str, Any]]:
    """One number is asked for, of ``keys`` that the text tells of as many cities.

    Fields: text, city, answer, characters, depth.
    """
    _check(characters, items)
    if not 1 <= keys <= len(_PLACES):
        raise ValueError(f"keys must be in 1..{len(_PLACES)}, got {keys}")
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(items):
        size, depth = (
            characters[number % len(characters)],
            depths[number // len(characters) % len(depths)],
        )
        cities = [_PLACES[i] for i in rng.choice(len(_PLACES), keys, replace=False)]
        numbers = [str(n) for n in rng.choice(np.arange(1000, 10000), keys, replace=False)]
        facts = [f"The special number of {c} is {n}." for c, n in zip(cities, numbers)]
        places = [depth, *rng.uniform(0, 1, keys - 1)]
        rows.append(
            {
                "text": _fill(rng, facts, places, size),
                "city": cities[0],
                "answer": numbers[0],
                "characters": size,
                "depth": depth,
            }
        )
    return rows


def multi_hop(
    data: Finder, *, characters: list[int], hops: int, chains: int, items: int, seed: int
) -> list[dict[str, Any]]:
    """Someone has a number, others have what the one before has: what has the last of one chain?

    Sentences stand in random places, so that each hop is a search of the whole text.

    Fields: text, person, answer, characters, hops.
    """
    _check(characters, items)
    if not (hops >= 1 and chains >= 1 and (hops + 1) * chains <= len(NAMES)):
        raise ValueError(f"(hops + 1) * chains must be in 2..{len(NAMES)}, got {hops=}, {chains=}")
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(items):
        size = characters[number % len(characters)]
        people = [NAMES[i] for i in rng.permutation(len(NAMES))[: (hops + 1) * chains]]
        codes = [str(n) for n in rng.choice(np.arange(1000, 10000), chains, replace=False)]
        facts = []
        for chain in range(chains):
            members = people[chain * (hops + 1) : (chain + 1) * (hops + 1)]
            facts.append(f"The code of {members[0]} is {codes[chain]}.")
            facts += [
                f"The code of {person} is the same as that of {before}."
                for before, person in zip(members, members[1:])
            ]
        rows.append(
            {
                "text": _fill(rng, facts, list(rng.uniform(0, 1, len(facts))), size),
                "person": people[hops],
                "answer": codes[0],
                "characters": size,
                "hops": hops,
            }
        )
    return rows


_SYLLABLES = "ba de fi go ku la me ni po ru sa te vi wo zu".split()


def recall(data: Finder, *, pairs: int, items: int, seed: int) -> list[dict[str, Any]]:
    """A list of invented words and numbers, and one word to recall the number of.

    Fields: text, word, answer, pairs.
    """
    _check([1], items)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(items):
        words: dict[str, str] = {}
        while len(words) < pairs:
            word = "".join(_SYLLABLES[i] for i in rng.integers(0, len(_SYLLABLES), 3))
            words.setdefault(word, str(rng.integers(10, 100)))
        asked = list(words)[int(rng.integers(pairs))]
        text = "\n".join(f"{word}: {number}" for word, number in words.items())
        rows.append({"text": text, "word": asked, "answer": words[asked], "pairs": pairs})
    return rows


def _check(characters: list[int], items: int) -> None:
    if not characters or min(characters) < 1 or items < 1:
        raise ValueError(f"characters and items must be 1 or more, got {characters}, {items}")
