"""Quantised Hugging Face folders: GPTQ, AWQ and compressed-tensors."""

from collections.abc import Callable, Mapping

from oarlock.llm.loading import awq, compressed_tensors, gptq
from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.stored import Stored

_METHODS: dict[str, Callable[[Fields, Mapping[str, Stored]], dict[str, Stored]]] = {
    "awq": awq.decoded,
    "compressed-tensors": compressed_tensors.decoded,
    "gptq": gptq.decoded,
}


def decoded(settings: Fields, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors that a quantisation configuration stands for.

    Raises:
        ValueError: its method or layout is not read here, or tensors are missing or misshapen.
    """
    method = settings.text("quant_method")
    if method not in _METHODS:
        raise ValueError(
            f"{settings.source}: quant_method must be one of {', '.join(_METHODS)}, got {method!r}."
        )
    try:
        return _METHODS[method](settings, stored)
    except ValueError as error:
        if str(error).startswith(settings.source):
            raise
        raise ValueError(f"{settings.source}: {error}") from error
