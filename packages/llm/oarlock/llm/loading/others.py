"""Checkpoints of llama2.c, of rwkv.cpp, and of ``oarlock.llm.models.save``."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle

from oarlock.llm import models
from oarlock.llm.loading.checkpoint import Checkpoint, Text, check_sizes
from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.hugging_face import read_safetensors, read_text
from oarlock.llm.loading.stored import Parameters, Part, Stored
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.tokenizers import Llama2cTokenizer, llama2c
from oarlock.llm.weights.llama2c import read_llama2c
from oarlock.llm.weights.rwkv import read_rwkv_cpp


def shapes(family: str, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's parameters; nothing of their size is made."""
    with paddle.LazyGuard():
        state = models.undrawn(family, config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def load_own(folder: Path, fields: Fields) -> Checkpoint:
    """Read a folder of ``models.save``; a tokenizer of Hugging Face's may lie beside.

    Raises:
        ValueError: as ``models.load``.
    """
    family = fields.text("model")
    config = models.config_class(family).from_dict(fields.mapping("config"))
    stored = read_safetensors(folder)
    return Checkpoint(
        source=folder,
        format="oarlock",
        family=family,
        config=config,
        parameters=_as_they_are(family, config, stored, folder),
        text=read_text(folder, Fields({}, str(folder))),
    )


def load_llama2c(path: Path) -> Checkpoint:
    """Read a ``.bin`` of llama2.c, and ``tokenizer.bin`` or the one ``tok*.bin`` beside it.

    Raises:
        ValueError: as ``weights.load_llama2c``; the tokenizer is for fewer or more tokens.
    """
    config, tensors = read_llama2c(path)
    found = sorted({*path.parent.glob("tok*.bin")} - {path})
    tokenizer = Llama2cTokenizer.from_file(found[0]) if len(found) == 1 else None
    if tokenizer is not None and tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{found[0]} must have {config.vocab_size} tokens, as {path} has, "
            f"got {tokenizer.vocab_size}."
        )
    return Checkpoint(
        source=path,
        format="llama2.c",
        family="llama",
        config=config,
        parameters=_as_they_are("llama", config, _stored(tensors), path),
        # the models were trained on texts that follow <s>, which also ends the one before
        text=Text(
            tokenizer=tokenizer,
            bos=llama2c.BOS,
            eos=(llama2c.EOS, llama2c.BOS),
            adds_bos=True,
            template_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        ),
    )


def load_rwkv_cpp(path: Path) -> Checkpoint:
    """Read an RWKV-4 ``.bin`` of rwkv.cpp; the file does not say which tokenizer is its own.

    Raises:
        ValueError: as ``weights.load_rwkv_cpp``.
    """
    config, tensors = read_rwkv_cpp(path)
    return Checkpoint(
        source=path,
        format="rwkv.cpp",
        family="rwkv4",
        config=config,
        parameters=_as_they_are("rwkv4", config, _stored(tensors), path),
    )


def _stored(tensors: Mapping[str, np.ndarray]) -> dict[str, Stored]:
    return {
        name: Stored(
            name=name,
            shape=values.shape,
            format=values.dtype.name,
            num_bytes=values.nbytes,
            read=functools.partial(np.asarray, values),
        )
        for name, values in tensors.items()
    }


def _as_they_are(
    family: str, config: ModelConfig, stored: Mapping[str, Stored], source: Path
) -> Parameters:
    check_sizes(config, stored, source)
    parts = {name: Part(name=name, shape=shape) for name, shape in shapes(family, config).items()}
    return Parameters(stored, parts, source=str(source))
