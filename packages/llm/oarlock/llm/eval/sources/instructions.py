"""Instructions that a program can check, several at once."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from oarlock.llm.eval.data import Finder

Language = Literal["en", "zh"]

#: What to write about.
TOPICS: dict[str, tuple[str, ...]] = {
    "en": (
        "the sea",
        "a train journey",
        "bread",
        "winter",
        "an old clock",
        "bees",
        "a market",
        "the moon",
    ),
    "zh": ("大海", "火车旅行", "面包", "冬天", "老钟", "蜜蜂", "集市", "月亮"),
}
_KEYWORDS = {
    "en": ("quiet", "river", "seven", "copper", "morning", "lantern"),
    "zh": ("安静", "河流", "早晨", "灯笼", "风", "石头"),
}
_FORBIDDEN = {"en": ("very", "the", "is"), "zh": ("的", "是", "很")}


def _sentences(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    count = int(rng.integers(2, 5))
    said = {"en": f"write exactly {count} sentences", "zh": f"正好写{count}句话"}
    return said[language], {"check": "sentences", "count": count}


def _keyword(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    word = str(rng.choice(_KEYWORDS[language]))
    said = {"en": f'use the word "{word}"', "zh": f"使用词语“{word}”"}
    return said[language], {"check": "contains", "text": word}


def _forbidden(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    word = str(rng.choice(_FORBIDDEN[language]))
    said = {"en": f'do not use the word "{word}"', "zh": f"不要使用“{word}”字"}
    return said[language], {"check": "lacks", "text": word}


def _length(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    most = int(rng.choice([20, 30, 40]))
    said = {"en": f"use at most {most} words", "zh": f"不超过{most}个字"}
    return said[language], {"check": "at_most", "count": most, "language": language}


def _ending(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    end = str(rng.choice({"en": ["THE END", "That is all."], "zh": ["完", "就这样。"]}[language]))
    said = {
        "en": f'end with "{end}" and nothing after it',
        "zh": f"以“{end}”结尾，之后不要再写任何内容",
    }
    return said[language], {"check": "ends", "text": end}


def _case(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    if language == "zh":
        return "不要使用任何阿拉伯数字", {"check": "no_digits"}
    if rng.random() < 0.5:
        return "write in capital letters only", {"check": "upper"}
    return "write in lower-case letters only", {"check": "lower"}


def _bullets(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    count = int(rng.integers(2, 6))
    said = {
        "en": f'write a list of exactly {count} points, each on a line that begins with "- "',
        "zh": f"写一个正好有{count}点的列表，每点一行，以“- ”开头",
    }
    return said[language], {"check": "bullets", "count": count}


def _json(rng: np.random.Generator, language: Language) -> tuple[str, dict[str, Any]]:
    keys = [str(k) for k in rng.choice(["title", "text", "mood", "year"], 2, replace=False)]
    said = {
        "en": f'answer with one JSON object that has exactly the keys "{keys[0]}" and "{keys[1]}"',
        "zh": f'只用一个JSON对象回答，键正好是"{keys[0]}"和"{keys[1]}"',
    }
    return said[language], {"check": "json_keys", "keys": sorted(keys)}


_MAKERS: dict[str, Callable[..., tuple[str, dict[str, Any]]]] = {
    "sentences": _sentences,
    "keyword": _keyword,
    "forbidden": _forbidden,
    "length": _length,
    "ending": _ending,
    "case": _case,
    "bullets": _bullets,
    "json": _json,
}
#: Of these, one at most in an instruction: together they contradict each other.
_SHAPES = {"sentences", "bullets", "json"}
_CLASHES = ({"json", "ending"}, {"case", "ending"}, {"case", "keyword"}, {"case", "json"})


def make(
    data: Finder, *, constraints: int, items: int, language: Language, seed: int
) -> list[dict[str, Any]]:
    """Something to write about a topic, under so many constraints.

    Fields: topic, rules (text), checks (for the metric ``instructions``), constraints.

    Source of the idea: IFEval, arXiv 2311.07911.
    """
    if not 1 <= constraints <= 5 or items < 1 or language not in TOPICS:
        raise ValueError(f"constraints must be in 1..5, got {constraints=}, {items=}, {language=}")
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < items:
        kinds = {str(k) for k in rng.choice(list(_MAKERS), constraints, replace=False)}
        if len(kinds & _SHAPES) > 1 or any(clash <= kinds for clash in _CLASHES):
            continue
        made = [_MAKERS[kind](rng, language) for kind in sorted(kinds)]
        rows.append(
            {
                "topic": str(rng.choice(TOPICS[language])),
                "rules": "\n".join(f"{i}. {text}" for i, (text, _) in enumerate(made, 1)),
                "checks": [check for _, check in made],
                "constraints": constraints,
            }
        )
    return rows
