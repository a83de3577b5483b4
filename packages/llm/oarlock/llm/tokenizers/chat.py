"""Prompts of chats: Jinja templates that come with models, rendered in a sandbox.

A template gets what ``transformers`` gives one: ``messages``, ``tools``, ``add_generation_prompt``,
spellings of special tokens, ``raise_exception``, ``strftime_now``, a ``tojson`` without HTML's escapes,
``break`` and ``continue``, ``generation`` blocks; blocks are trimmed. It does not get Python: attributes
with underscores and changes of what it was given are refused by Jinja's sandbox, and ``limits`` bounds
the work it may do.

The spelling of a special token in a message is, after rendering, indistinguishable from the template's
own: who serves strangers should refuse or break such spellings before.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols

from oarlock.llm.tokenizers import limits

LONGEST_SOURCE = 1 << 18  # characters of a template; published ones have a few thousand


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    now: datetime.datetime | None = None,
    **variables: Any,
) -> str:
    """The prompt of a chat.

    Args:
        template: Jinja source.
        messages: objects with "role" and "content", and what the template knows besides.
        tools: JSON schemas of functions, as OpenAI's API has them.
        add_generation_prompt: end with the beginning of the assistant's answer.
        now: what ``strftime_now`` tells; None for the present.
        variables: what the template may name besides: bos_token, eos_token, enable_thinking...

    Raises:
        ValueError: the template is no Jinja, goes beyond the sandbox or its limits, raises an error
            itself, or the messages do not suit it.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise ValueError(f"messages must be several objects, got {type(messages).__name__}.")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{number}] must be an object with a role, got {message!r}.")
    if not isinstance(template, str) or len(template) > LONGEST_SOURCE:
        raise ValueError(f"template must be a text of at most {LONGEST_SOURCE} characters.")
    compiled = _compile(template)
    try:
        with limits.Budget() as budget:
            pieces = []
            for piece in compiled.generate(
                messages=[dict(message) for message in messages],
                tools=None if tools is None else [dict(tool) for tool in tools],
                documents=None,
                add_generation_prompt=add_generation_prompt,
                strftime_now=(now or datetime.datetime.now()).strftime,
                **variables,
            ):
                budget.output(piece)
                pieces.append(piece)
            return "".join(pieces)
    # a template can raise anything that Python can
    except Exception as error:
        raise ValueError(f"template does not render: {_reason(error)}.") from error


def check(template: str) -> None:
    """Refuse a template that is no Jinja: ValueError, before anybody chats."""
    _compile(template)


def _reason(error: Exception) -> str:
    if isinstance(error, (jinja2.TemplateError, limits.LimitError)):
        return str(error).rstrip(".") or type(error).__name__
    return f"{type(error).__name__}: {error}"


@functools.lru_cache(maxsize=64)
def _compile(source: str) -> jinja2.Template:
    try:
        with limits.Budget():
            return _environment().from_string(source)
    # besides its own errors, Jinja lets those of Python's parser and stack through
    except Exception as error:
        line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise ValueError(f"template is of no use{line}: {_reason(error)}.") from error


@functools.cache
def _environment() -> limits.LimitedEnvironment:
    environment = limits.LimitedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # constants would be computed before limits are set
        extensions=[loopcontrols, _Generation],
    )
    environment.filters["tojson"] = limits.counted(_to_json)
    environment.globals["raise_exception"] = _raise_exception
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote, for training; it renders as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)
