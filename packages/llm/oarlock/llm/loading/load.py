"""Any model that is read here, from its path."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from oarlock.llm import models
from oarlock.llm.loading import gguf_file, others
from oarlock.llm.loading.checkpoint import Checkpoint
from oarlock.llm.loading.fields import read_json
from oarlock.llm.loading.gguf import load_gguf
from oarlock.llm.loading.hugging_face import load_hugging_face
from oarlock.llm.models import LanguageModel
from oarlock.llm.tokenizers import Tokenizer
from oarlock.llm.weights.rwkv import MAGIC as RWKV_MAGIC


def load(
    path: str | os.PathLike, *, float32: bool = False, max_length: int | None = None
) -> Checkpoint:
    """Open a model; its parameters are read when they are asked for.

    Args:
        path: a Hugging Face folder (``config.json`` and safetensors: BLOOM, ChatGLM2 and 3, GLM,
            GPT-2, LLaMA, Mistral, Mixtral, Qwen2), a folder of ``models.save``, a ``.gguf`` file
            (llama, qwen2, gpt2, bloom, chatglm), a ``.bin`` of llama2.c or rwkv.cpp.
        float32: parameters come decoded and widened, else as the files have them: float32, float16,
            bfloat16 (of ``ml_dtypes``) or ``BlockArray``.
        max_length: positions at most, where the model's own are more than are needed.

    Raises:
        ValueError: the path is none of these, or broken; names what is wrong.
        FileNotFoundError: nothing is there.
    """
    path = Path(path)
    checkpoint = _open(path, float32)
    own = getattr(checkpoint.config, "max_length", None)
    if max_length is None or own is None:
        return checkpoint
    if isinstance(max_length, bool) or not 1 <= max_length <= own:
        raise ValueError(f"max_length must be in 1..{own}, got {max_length}.")
    shorter = dataclasses.replace(checkpoint.config, max_length=max_length)  # type: ignore[call-arg]
    return dataclasses.replace(checkpoint, config=shorter)


def _open(path: Path, float32: bool) -> Checkpoint:
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ValueError(f"{path} must hold config.json, as folders of models do.")
        fields = read_json(path / "config.json")
        if "model" in fields and "config" in fields:
            return others.load_own(path, fields)
        return load_hugging_face(path, float32=float32)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there: a model must be a folder or file of this machine, as nothing is downloaded; "
            "fetch it first, for example with `hf download`."
        )
    with open(path, "rb") as file:
        begin = file.read(4)
    if begin == gguf_file.MAGIC:
        return load_gguf(path, float32=float32)
    if begin == RWKV_MAGIC.to_bytes(4, "little"):
        return others.load_rwkv_cpp(path)
    if path.suffix == ".bin":
        return others.load_llama2c(path)
    raise ValueError(
        f"{path} must be a folder, a .gguf file, or a .bin of llama2.c or rwkv.cpp; it begins with "
        f"{begin!r}."
    )


def load_model(
    path: str | os.PathLike, *, max_length: int | None = None
) -> tuple[LanguageModel, Tokenizer | None]:
    """The model of ``load`` in float32, and its tokenizer, for reference.

    Parameters are read one after another, so that memory holds the model and one of them.

    Raises:
        ValueError: as ``load``.
    """
    checkpoint = load(path, float32=True, max_length=max_length)
    return build(checkpoint), checkpoint.text.tokenizer


def build(checkpoint: Checkpoint) -> LanguageModel:
    """The model of a checkpoint that was loaded with ``float32=True``."""
    model = models.undrawn(checkpoint.family, checkpoint.config)
    for name, tensor in model.state_dict().items():
        values = checkpoint.parameters[name]
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            raise ValueError(
                f"checkpoint must be loaded with float32=True, but {name} is "
                f"{checkpoint.parameters.format(name)}."
            )
        tensor.set_value(np.ascontiguousarray(values).reshape(tensor.shape))
    return model.eval()
