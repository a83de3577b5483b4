"""What the pieces of a ``tokenizer.json`` stand for, told from its decoder."""

import re
from collections.abc import Callable
from typing import Any

SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PLAIN = ("Fuse",)  # joins what is joined here anyway


def byte_alphabet() -> dict[str, int]:
    """The 256 characters in which byte-level BPE spells bytes, as GPT-2 chose them.

    Printable ones of Latin-1 stand for themselves; the others for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    spelt = {chr(byte): byte for byte in printable}
    return spelt | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_ALPHABET = byte_alphabet()


def spelling(decoder: dict[str, Any] | None) -> tuple[Callable[[str], bytes], bool]:
    """How a piece is spelt in bytes, and whether a text's first space is dropped.

    Args:
        decoder: the part of that name of a ``tokenizer.json``; byte-level, or SentencePiece's way
            of spaces and bytes.

    Raises:
        ValueError: another decoder, whose pieces have no bytes of their own (such as WordPiece's).
    """
    steps = [decoder] if decoder is not None else []
    if decoder is not None and decoder.get("type") == "Sequence":
        steps = decoder["decoders"]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level, False
    if not kinds:
        return str.encode, False
    replaced: list[tuple[str, str]] = []
    bytes_too = drops = False
    for step in steps:
        kind = step.get("type")
        if kind == "Replace" and "String" in step.get("pattern", {}):
            replaced.append((step["pattern"]["String"], step["content"]))
        elif kind == "Metaspace":
            replaced.append((step.get("replacement", SPACE), " "))
            drops = step.get("prepend_scheme", "always") != "never"
        elif kind == "ByteFallback":
            bytes_too = True
        elif kind == "Strip" and (step["content"], step["start"], step["stop"]) == (" ", 1, 0):
            drops = True
        elif kind not in _PLAIN:
            raise ValueError(
                f"decoder must be byte-level or SentencePiece's, whose pieces have bytes of their "
                f"own, got {kind!r}."
            )

    def spell(piece: str) -> bytes:
        byte = _BYTE.fullmatch(piece) if bytes_too else None
        if byte:
            return bytes([int(byte[1], 16)])
        for old, new in replaced:
            piece = piece.replace(old, new)
        return piece.encode()

    return spell, drops


def _byte_level(piece: str) -> bytes:
    if all(character in _ALPHABET for character in piece):
        return bytes(_ALPHABET[character] for character in piece)
    return piece.encode()
