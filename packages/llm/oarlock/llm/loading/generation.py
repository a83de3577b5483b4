"""The author's defaults for drawing tokens, as ``generation_config.json`` and GGUF metadata say them.

Source: github.com/huggingface/transformers, ``generation/configuration_utils.py``; github.com/ggml-org/ggml,
``gguf-py/gguf/constants.py``.
"""

from collections.abc import Mapping

from oarlock.llm.loading.fields import Fields

#: Fields of ``generation_config.json`` by the names of sampling parameters.
HUGGING_FACE = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_tokens": "max_new_tokens",
}
#: Metadata of GGUF files, likewise.
GGUF = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
_COUNTS = ("top_k", "max_tokens")


def generation(fields: Fields, names: Mapping[str, str]) -> dict[str, float]:
    """Defaults that are there, by the names of sampling parameters; ``do_sample: false`` is temperature 0.

    Args:
        fields: of the file.
        names: in the file, by the names of sampling parameters.

    Raises:
        ValueError: a field is no number.
    """
    found: dict[str, float] = {}
    for ours, theirs in names.items():
        value = (fields.integer if ours in _COUNTS else fields.number)(theirs, default=None)
        if value is not None and not (ours == "top_k" and value <= 0):  # 0 and -1: among all tokens
            found[ours] = value
    if names is HUGGING_FACE and fields.flag("do_sample", default=True) is False:
        found["temperature"] = 0.0
    return found
