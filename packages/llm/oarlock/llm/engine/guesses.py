"""Guessing what follows from what was written before.

Source: prompt look-up decoding; a case of speculative decoding (2211.17192) whose guesses cost nothing.
"""

from collections.abc import Sequence

LONGEST, SHORTEST = 4, 2  #: tokens at the end of a text that are looked for before it
REACH = 4096  #: how far back


def repeated(tokens: Sequence[int], count: int) -> tuple[int, ...]:
    """What followed the last time that the text's last tokens occurred, ``count`` tokens at most.

    The longest end that occurs wins, and of its places the latest.
    """
    if count < 1:
        return ()
    begin = max(0, len(tokens) - REACH)
    recent = list(tokens[begin:])
    for size in range(min(LONGEST, len(recent) - 1), SHORTEST - 1, -1):
        end = recent[-size:]
        for place in range(len(recent) - size - 1, -1, -1):
            if recent[place] == end[0] and recent[place : place + size] == end:
                return tuple(recent[place + size : place + size + count])
    return ()
