"""Models by name."""

import difflib

from oarlock.llm.models import llama
from oarlock.llm.models.base import LanguageModel
from oarlock.llm.models.config import ModelConfig

_MODELS: dict[str, tuple[type[LanguageModel], type[ModelConfig]]] = {
    "llama": (llama.Llama, llama.LlamaConfig),
}


def names() -> list[str]:
    """Names of all models, sorted."""
    return sorted(_MODELS)


def config_class(name: str) -> type[ModelConfig]:
    """Configuration class of the model ``name``."""
    return _find(name)[1]


def create(name: str, config: ModelConfig, *, seed: int = 0) -> LanguageModel:
    """Build the model ``name``, its weights drawn from ``seed``.

    Raises:
        ValueError: the name is unknown or the configuration is another model's.
    """
    model_class, expected = _find(name)
    if not isinstance(config, expected):
        raise ValueError(
            f"config of {name!r} must be a {expected.__name__}, got {type(config).__name__}."
        )
    return model_class(config, seed=seed)


def name_of(model: LanguageModel) -> str:
    """The name under which the class of ``model`` is registered."""
    for name, (model_class, _) in _MODELS.items():
        if type(model) is model_class:
            return name
    raise ValueError(f"model must be one of {names()}, got {type(model).__name__}.")


def _find(name: str) -> tuple[type[LanguageModel], type[ModelConfig]]:
    if name not in _MODELS:
        near = difflib.get_close_matches(str(name), _MODELS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}."
        raise ValueError(f"no model is named {name!r}: {hint}")
    return _MODELS[name]
