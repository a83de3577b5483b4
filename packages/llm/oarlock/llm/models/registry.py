"""Models by name, and the folders they are saved in."""

import difflib
import json
import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from oarlock.llm.models import bloom, glm, gpt, llama, moe, rwkv4
from oarlock.llm.models.base import LanguageModel, check_seed
from oarlock.llm.models.config import ModelConfig

_MODELS: dict[str, tuple[type[LanguageModel], type[ModelConfig]]] = {
    "bloom": (bloom.Bloom, bloom.BloomConfig),
    "glm": (glm.GLM, glm.GLMConfig),
    "gpt": (gpt.GPT, gpt.GPTConfig),
    "llama": (llama.Llama, llama.LlamaConfig),
    "moe": (moe.MoE, moe.MoEConfig),
    "rwkv4": (rwkv4.RWKV4, rwkv4.RWKV4Config),
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
        ValueError: the name is unknown, the configuration is another model's, or the seed is no
            integer, 0 or above.
    """
    return _build(name, config, check_seed(seed))


def undrawn(name: str, config: ModelConfig) -> LanguageModel:
    """The same without drawing weights, for a model that is about to get others."""
    return _build(name, config, None)


def _build(name: str, config: ModelConfig, seed: int | None) -> LanguageModel:
    model_class, expected = _find(name)
    if type(config) is not expected:
        raise ValueError(
            f"config of {name!r} must be a {expected.__name__}, got {type(config).__name__}."
        )
    return model_class(config, seed=seed)  # type: ignore[call-arg]  # every model takes it


def name_of(model: LanguageModel) -> str:
    """The name under which the class of ``model`` is registered."""
    for name, (model_class, _) in _MODELS.items():
        if type(model) is model_class:
            return name
    raise ValueError(f"model must be one of {names()}, got {type(model).__name__}.")


def save(model: LanguageModel, folder: str | os.PathLike) -> None:
    """Write ``config.json`` and ``model.safetensors`` (float32) into ``folder``.

    Each file is written beside its name first, so that an interruption leaves no half file.
    """
    folder = Path(folder)
    description = {"model": name_of(model), "config": model.config.to_dict()}
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for name, array in tensors.items():
        if array.dtype != np.float32:
            dtype = model.state_dict()[name].dtype
            raise ValueError(f"model must be float32 to be saved, but {name} is {dtype}.")
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "model.safetensors", safetensors.numpy.save(tensors))
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    _replace(folder / "config.json", text.encode())


def load(folder: str | os.PathLike) -> LanguageModel:
    """Read a model written by ``save``.

    Raises:
        ValueError: the description is unknown, the weights are truncated, or a tensor is missing,
            surplus, misshapen or of another dtype; all such are named.
    """
    folder = Path(folder)
    config_path, weights_path = folder / "config.json", folder / "model.safetensors"
    try:
        description = json.loads(config_path.read_text(encoding="utf-8"))
        name, fields = description["model"], description["config"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{config_path} must hold a JSON object with 'model' and 'config': {error!r}."
        ) from error
    model = undrawn(name, config_class(name).from_dict(fields))
    try:
        tensors = safetensors.numpy.load_file(weights_path)
    except safetensors.SafetensorError as error:
        size = weights_path.stat().st_size
        raise ValueError(
            f"{weights_path} ({size} bytes) is truncated or no safetensors file: {error}."
        ) from error
    assign(model, tensors, str(weights_path))
    return model


def assign(model: LanguageModel, tensors: dict[str, np.ndarray], source: str) -> None:
    """Give every parameter of ``model`` its tensor; ValueError, naming each, if they do not fit."""
    state = model.state_dict()
    wrong = [f"{name} is missing" for name in state if name not in tensors]
    wrong += [f"{name} is not in the model" for name in tensors if name not in state]
    for name in state:
        if name not in tensors:
            continue
        expected, found = tuple(state[name].shape), tensors[name].shape
        if found != expected:
            wrong.append(f"{name} has shape {found}, expected {expected}")
        if tensors[name].dtype != np.float32:
            wrong.append(f"{name} is {tensors[name].dtype}, expected float32")
    if wrong:
        raise ValueError(f"{source} does not fit the {type(model).__name__}: {'; '.join(wrong)}.")
    for name, tensor in state.items():
        tensor.set_value(tensors[name])


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _find(name: str) -> tuple[type[LanguageModel], type[ModelConfig]]:
    if name not in _MODELS:
        near = difflib.get_close_matches(str(name), _MODELS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}."
        raise ValueError(f"no model is named {name!r}: {hint}")
    return _MODELS[name]
