"""Quantised Hugging Face folders."""

from collections.abc import Mapping

from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.stored import Stored


def decoded(settings: Fields, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors that a quantisation configuration stands for; ValueError for one not read here."""
    method = settings.text("quant_method")
    raise ValueError(f"{settings.source}: quant_method {method!r} is not read.")
