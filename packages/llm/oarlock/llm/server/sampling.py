"""From the fields of a request to what the engine is asked for."""

import json
import re
from collections.abc import Mapping
from typing import Any

from oarlock.llm.engine.params import Constraint, SamplingParams
from oarlock.llm.server.errors import bad_request
from oarlock.llm.server.limits import Limits
from oarlock.llm.server.schemas.chat import JSONSchemaFormat, ResponseFormat, TextFormat
from oarlock.llm.server.schemas.common import SamplingFields

OBJECT = '{"type":"object"}'


def sampling_params(
    fields: SamplingFields,
    *,
    max_tokens: int | None,
    constraint: Constraint | None,
    defaults: Mapping[str, Any] = {},
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    """What ``fields`` say of drawing and stopping.

    Args:
        fields: of the request.
        max_tokens: see `length`.
        constraint: language of the text.
        defaults: of the model's author, for what the request does not say.
        logprobs: most probable tokens to report with each; None for no report.
        prompt_logprobs: the same for the prompt.

    Raises:
        APIError: 400, a value is one that the engine refuses.
    """
    given: dict[str, Any] = {
        "temperature": fields.temperature,
        "top_p": fields.top_p,
        "top_k": fields.top_k,
        "min_p": fields.min_p,
        "repetition_penalty": fields.repetition_penalty,
        "presence_penalty": fields.presence_penalty,
        "frequency_penalty": fields.frequency_penalty,
        "seed": None if fields.seed is None else fields.seed % (1 << 63),
        "n": fields.n,
        "stop": (
            (fields.stop,) if isinstance(fields.stop, str) else fields.stop and tuple(fields.stop)
        ),
        "stop_token_ids": fields.stop_token_ids and tuple(fields.stop_token_ids),
        "ignore_eos": fields.ignore_eos,
        "logit_bias": fields.logit_bias
        and {int(key): bias for key, bias in fields.logit_bias.items()},
    }
    chosen = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    if chosen.get("top_k", 1) <= 0:
        del chosen["top_k"]
    chosen |= {
        "max_tokens": max_tokens,
        "logprobs": logprobs,
        "prompt_logprobs": prompt_logprobs,
        "constraint": constraint,
    }
    try:
        return SamplingParams(**chosen)
    except ValueError as error:
        raise bad_request(str(error), code="invalid_value") from error


def length(
    *,
    prompt_tokens: int,
    asked: int | None,
    max_length: int,
    limits: Limits,
    param: str,
    default: int | None = None,
) -> int:
    """Tokens that a text may get.

    Args:
        prompt_tokens: of its prompt.
        asked: by the request; None for ``default``.
        max_length: of prompt and text together.
        limits: of the server.
        param: the field that holds the prompt.
        default: as many where there is room, else as there is; None for as many as there may be.

    Raises:
        APIError: 400, the prompt or what is asked for does not fit.
    """
    most = max_length if limits.prompt_tokens is None else min(max_length, limits.prompt_tokens)
    if prompt_tokens > most:
        raise bad_request(
            f"{param} must have at most {most} tokens, got {prompt_tokens}: shorten it.",
            param=param,
            code="context_length_exceeded",
        )
    room = max_length - prompt_tokens
    if asked is not None and asked > room:
        raise bad_request(
            f"max_tokens must be at most {room}, got {asked}: the model's context holds {max_length} "
            f"tokens, and the prompt has {prompt_tokens}.",
            param="max_tokens",
            code="context_length_exceeded",
        )
    most = room if limits.completion_tokens is None else min(room, limits.completion_tokens)
    if asked is not None and asked > most:
        raise bad_request(
            f"max_tokens must be at most {most} on this server, got {asked}.",
            param="max_tokens",
            code="invalid_value",
        )
    if asked is not None:
        return asked
    return most if default is None else min(most, default)


def constraint_of(
    fields: SamplingFields, response_format: ResponseFormat | None
) -> Constraint | None:
    """The language that ``response_format``, ``guided_…`` or ``structured_outputs`` ask for.

    Raises:
        APIError: 400, there are several, or one is malformed.
    """
    found: list[tuple[str, Constraint]] = []
    if response_format is not None and not isinstance(response_format, TextFormat):
        if isinstance(response_format, JSONSchemaFormat):
            constraint = schema_constraint(response_format.json_schema.schema_)
        else:
            constraint = Constraint("json_schema", OBJECT)
        found.append(("response_format", constraint))
    found += _guided(
        "guided_",
        {
            "json": fields.guided_json,
            "regex": fields.guided_regex,
            "choice": fields.guided_choice,
            "grammar": fields.guided_grammar,
        },
    )
    if fields.structured_outputs is not None:
        outputs = fields.structured_outputs
        found += _guided(
            "structured_outputs.",
            {
                "json": outputs.json_,
                "regex": outputs.regex,
                "choice": outputs.choice,
                "grammar": outputs.grammar,
                "json_object": outputs.json_object or None,
            },
        )
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise bad_request(
            f"Only one of {names} can be given.", param=found[1][0], code="invalid_value"
        )
    return found[0][1] if found else None


def _guided(prefix: str, values: dict[str, Any]) -> list[tuple[str, Constraint]]:
    found = []
    for kind, value in values.items():
        if value is None:
            continue
        name = prefix + kind
        if kind == "json":
            constraint = schema_constraint(_parse(value, name) if isinstance(value, str) else value)
        elif kind == "json_object":
            constraint = Constraint("json_schema", OBJECT)
        elif kind == "choice":
            constraint = Constraint("regex", "|".join(f"(?:{re.escape(text)})" for text in value))
        else:
            constraint = Constraint(kind, value)  # type: ignore[arg-type]
        found.append((name, constraint))
    return found


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_request(
            f"{name} must be a JSON schema: {error}.", param=name, code="invalid_json"
        ) from error


def schema_constraint(schema: Any) -> Constraint:
    """The JSON texts that fit ``schema``."""
    return Constraint("json_schema", json.dumps(schema, ensure_ascii=False, separators=(",", ":")))
