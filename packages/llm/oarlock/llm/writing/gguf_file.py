"""GGUF files, written a tensor at a time with the package ``gguf``."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType as Type
from gguf.constants import LlamaFileType
from numpy.typing import NDArray

from oarlock.llm.writing.tensors import Tensor

# It tells the name of every file at the level of information.
logging.getLogger("gguf").setLevel(logging.WARNING)

TYPES = {
    "float32": Type.F32,
    "float16": Type.F16,
    "bfloat16": Type.BF16,
    "q4_0": Type.Q4_0,
    "q4_1": Type.Q4_1,
    "q5_0": Type.Q5_0,
    "q5_1": Type.Q5_1,
    "q8_0": Type.Q8_0,
    "q4_k": Type.Q4_K,
    "q5_k": Type.Q5_K,
    "q6_k": Type.Q6_K,
}
_FILE_TYPES = {
    "float32": LlamaFileType.ALL_F32,
    "float16": LlamaFileType.MOSTLY_F16,
    "bfloat16": LlamaFileType.MOSTLY_BF16,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q5_0": LlamaFileType.MOSTLY_Q5_0,
    "q5_1": LlamaFileType.MOSTLY_Q5_1,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_k": LlamaFileType.MOSTLY_Q4_K_M,
    "q5_k": LlamaFileType.MOSTLY_Q5_K_M,
    "q6_k": LlamaFileType.MOSTLY_Q6_K,
}


def write(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Sequence[Tensor],
    content: Callable[[Tensor], NDArray[Any]],
) -> None:
    """Write a file.

    Args:
        path: of the file.
        architecture: as llama.cpp calls it.
        metadata: values by whole keys: texts, flags, floats (float32), integers (uint32) and lists.
        tensors: in their order.
        content: gives a tensor's values when its turn comes.
    """
    writer = gguf.GGUFWriter(path, architecture)
    try:
        matrices = [tensor.kind for tensor in tensors if len(tensor.shape) > 1]
        writer.add_file_type(_FILE_TYPES[max(matrices, key=matrices.count)])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in metadata.items():
            _add(writer, key, value)
        for tensor in tensors:
            kind = TYPES[tensor.kind]
            dtype = np.dtype(
                np.float32
            )  # beside raw_dtype it only says that the shape is of values
            writer.add_tensor_info(
                tensor.name, tensor.shape, dtype, tensor.num_bytes, raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(np.ascontiguousarray(content(tensor)))
    finally:
        writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
