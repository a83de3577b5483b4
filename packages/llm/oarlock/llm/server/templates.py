"""Chat templates: Jinja in a sandbox, with what the authors of templates expect."""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """The prompt of a chat.

    Args:
        template: Jinja source.
        messages: objects with "role" and "content", and what the template knows besides.
        tools: JSON schemas of functions; None for none.
        add_generation_prompt: end with the beginning of the assistant's answer.
        variables: what the template may name besides.

    Raises:
        ValueError: the template is malformed, refuses the messages or does not suit them.
    """
    try:
        return compiled(template).render(
            messages=list(messages),
            tools=list(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            **variables,
        )
    except jinja2.TemplateError as error:
        raise ValueError(f"template refuses the messages: {error}.") from error
    # a template can raise anything that Python can
    except Exception as error:
        raise ValueError(f"template does not render: {type(error).__name__}: {error}.") from error


@functools.lru_cache(maxsize=16)
def compiled(source: str) -> jinja2.Template:
    """The template of ``source``; ValueError if it is malformed."""
    try:
        return _environment().from_string(source)
    except jinja2.TemplateError as error:
        raise ValueError(f"chat_template is malformed: {error}.") from error


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as chat templates expect it: blocks take no lines, loops can be left, JSON is plain."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
