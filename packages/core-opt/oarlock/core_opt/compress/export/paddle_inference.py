"""Models for Paddle Inference: saved with checksums, and run by its predictor.

>>> paddle_inference.save(model, "folder/model", [InputSpec([None, 64], "float32", "x")])
>>> paddle_inference.Predictor("folder/model").run(x)

Quantised layers keep their packed codes in the file and are dequantised by operators of the graph, since
Paddle's own weight-only operators have no CPU kernels. So the file is small; what the predictor makes of
it in memory, and its speed, are those of float32.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import inference, nn
from paddle.static import InputSpec

from ... import _checks
from . import files

_SUFFIXES = (".json", ".pdiparams")
_MANIFEST = ".sha256"


def save(model: nn.Layer, path: str | os.PathLike, inputs: Sequence[InputSpec]) -> None:
    """Write ``path`` + .json, .pdiparams and .sha256; they appear only when complete.

    Args:
        model: a layer that ``paddle.jit.to_static`` understands; saved as it computes in evaluation.
        path: of the files without their endings, in a folder that is there.
        inputs: a specification for each argument of its ``forward``.

    Raises:
        ValueError: there is no such folder, or no inputs are given.
        WriteFailed: the operating system refused; nothing new is left.
    """
    final = [files.target(f"{path}{suffix}") for suffix in (*_SUFFIXES, _MANIFEST)]
    if not inputs:
        raise ValueError("inputs must name at least one InputSpec.")
    training = model.training
    model.eval()
    try:
        with files.whole(*final) as parts, tempfile.TemporaryDirectory(
            dir=final[0].parent
        ) as folder:
            paddle.jit.save(model, f"{folder}/model", input_spec=list(inputs))
            digests = {}
            for suffix, part in zip(_SUFFIXES, parts):
                content = Path(f"{folder}/model{suffix}")
                if not content.exists():
                    raise ValueError(
                        "model has no parameters, so that Paddle saves no file of them."
                    )
                digests[suffix] = hashlib.sha256(content.read_bytes()).hexdigest()
                content.replace(part)
            parts[-1].write_text(json.dumps(digests), encoding="utf-8")
    finally:
        if training:
            model.train()


class Predictor:
    """A saved model in Paddle Inference on the CPU.

    Args:
        path: as given to ``save``.
        threads: of its operators.
        onednn: whether oneDNN computes where it can. Paddle 3.3.1 gives NaN then for some models, such
            as ``oarlock.llm``'s LLaMA; ``run`` raises where that is seen.
        bfloat16: whether oneDNN computes in bfloat16; needs ``onednn``.

    Raises:
        ValueError: a file is missing, truncated or changed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        threads: int = 1,
        onednn: bool = False,
        bfloat16: bool = False,
    ):
        _checks.flag("onednn", onednn)
        if _checks.flag("bfloat16", bfloat16) and not onednn:
            raise ValueError("bfloat16 needs onednn=True.")
        _verify(str(path))
        config = inference.Config(f"{path}.json", f"{path}.pdiparams")
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(_checks.whole("threads", threads, 1))
        config.enable_new_ir(True)
        config.enable_new_executor(True)
        if onednn:
            config.enable_mkldnn()
            if bfloat16:
                config.enable_mkldnn_bfloat16()
        else:
            config.disable_mkldnn()
        self._onednn = onednn
        self._predictor = inference.create_predictor(config)

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The outputs for these inputs, in the order of ``forward``.

        Raises:
            ValueError: another number of inputs. FloatingPointError: NaN from oneDNN.
        """
        names = self._predictor.get_input_names()
        if len(arrays) != len(names):
            raise ValueError(f"the model takes {len(names)} inputs, got {len(arrays)}.")
        for name, array in zip(names, arrays):
            self._predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(array))
        self._predictor.run()
        outputs = self._predictor.get_output_names()
        found = [self._predictor.get_output_handle(name).copy_to_cpu() for name in outputs]
        if self._onednn and any(np.isnan(one).any() for one in found if one.dtype.kind == "f"):
            raise FloatingPointError(
                "the outputs hold NaN; if those of onednn=False do not, use that."
            )
        return found


def _verify(path: str) -> None:
    """ValueError unless the files are those that ``save`` wrote."""
    for suffix in (*_SUFFIXES, _MANIFEST):
        if not Path(f"{path}{suffix}").is_file():
            raise ValueError(f"{path}{suffix} is missing; paddle_inference.save writes it.")
    try:
        digests = json.loads(Path(f"{path}{_MANIFEST}").read_text(encoding="utf-8"))
        wanted = {suffix: digests[suffix] for suffix in _SUFFIXES}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}{_MANIFEST} is damaged: {error!r}.") from error
    for suffix, digest in wanted.items():
        content = Path(f"{path}{suffix}").read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(
                f"{path}{suffix} ({len(content)} bytes) was truncated or changed: its SHA-256 is not"
                f" the one in {path}{_MANIFEST}."
            )
