"""The libraries and formats of a comparison of text generation, each as a worker with one model."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oarlock.accept import peers
from oarlock.accept.inference import shapes
from oarlock.accept.workers import Worker

#: Formats of GGUF files by names of our own: float16 is what llama.cpp takes where we take bfloat16.
GGUF = {"fp16": "f16", "int8": "q8_0", "int4": "q4_0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A library with weights of one format.

    Args:
        library: "ours", "llama.cpp", "onnxruntime", "transformers" or "paddlenlp".
        bits: "fp32", "fp16", "bf16", "int8" or "int4".
        most_texts: more at once are not asked of it, as they would take minutes.
    """

    library: str
    bits: str
    most_texts: int = 32

    @property
    def name(self) -> str:
        return f"{self.library} {self.bits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A running arm; `read_bytes` of weights are read for a token, where it says so."""

    arm: Arm
    worker: Worker
    about: Mapping[str, Any]


@contextmanager
def opened(arms: list[Arm], name: str, *, threads: int, seed: int) -> Iterator[dict[str, Opened]]:
    """Workers of all arms with a model of this shape.

    Arms that read files read the same ones: a LLaMA is written as GGUF in float16, Q8_0 and Q4_0 (embedding and
    head in Q8_0), and for ONNX Runtime with blocks of 32 weights in 4 bits. The others draw weights of their own.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = _files(arms, name, Path(folder), seed) if name in shapes.LLAMAS else {}
        files["native"] = _acceleration(Path(folder))
        found = {}
        for arm in arms:
            worker, about = _START[arm.library](arm, name, files, threads, seed)
            stack.enter_context(worker)
            found[arm.name] = Opened(arm=arm, worker=worker, about=about)
        yield found


def _files(arms: list[Arm], name: str, folder: Path, seed: int) -> dict[str, Path]:
    from oarlock.accept.deployment import models
    from oarlock.core_opt.compress.export import gguf, onnx

    parts, found = models.llama_of(shapes.LLAMAS[name], seed), {}
    read = {arm.bits for arm in arms if arm.library in ("ours", "llama.cpp")}
    for bits, kind in GGUF.items():
        if bits in read or (bits == "fp16" and read & {"fp32", "bf16"}):
            found[bits] = folder / f"{kind}.gguf"
            gguf.write(parts, found[bits], matrices=kind)
    if any(arm.library == "onnxruntime" for arm in arms):
        found["onnx"] = folder / "int4.onnx"
        onnx.write_llama(parts, found["onnx"], method="blocks", bits=4)
    return found


def _ours(
    arm: Arm, name: str, files: Mapping[str, Path], threads: int, seed: int
) -> tuple[Worker, dict]:
    worker = Worker.start("oarlock.accept.inference.engine")
    source: dict[str, Any] = {"shape": {"name": name, "seed": seed}}
    if name in shapes.LLAMAS:
        source = {"path": str(files.get(arm.bits, files.get("fp16")))}
    return worker, worker.call("load", weights=arm.bits, threads=threads, **source)


def _llama_cpp(
    arm: Arm, name: str, files: Mapping[str, Path], threads: int, seed: int
) -> tuple[Worker, dict]:
    script = peers.scripts("llama_cpp") / "decode.py"
    worker = Worker.start(script, python=peers.python("llama_cpp"))
    path = str(files[arm.bits])
    return worker, worker.call("load", path=path, threads=threads, context=64)


def _onnxruntime(
    arm: Arm, name: str, files: Mapping[str, Path], threads: int, seed: int
) -> tuple[Worker, dict]:
    env = {"OMP_NUM_THREADS": str(threads)}
    worker = Worker.start("oarlock.accept.deployment.onnx_decode", env=env)
    return worker, worker.call("load", path=str(files["onnx"]), threads=threads)


def _framework(
    arm: Arm, name: str, files: Mapping[str, Path], threads: int, seed: int
) -> tuple[Worker, dict]:
    env = {"OMP_NUM_THREADS": str(threads)}
    if arm.library == "paddlenlp":
        env["PYTHONPATH"] = str(files["native"])
    script = peers.scripts(arm.library) / "generate.py"
    worker = Worker.start(script, python=peers.python(arm.library), env=env)
    family = "llama" if name in shapes.LLAMAS else "gpt"
    shape = dict({**shapes.LLAMAS, **shapes.GPTS}[name])
    return worker, worker.call("load", family=family, shape=shape, threads=threads, seed=seed)


def _acceleration(folder: Path) -> Path:
    """A folder with nothing but our `oarlock.native`, whose `accelerate()` a peer's Paddle gets as well."""
    import oarlock.native

    place = folder / "native" / "oarlock"
    place.mkdir(parents=True)
    (place / "native").symlink_to(Path(oarlock.native.__file__).parent)
    return place.parent


_START = {
    "ours": _ours,
    "llama.cpp": _llama_cpp,
    "onnxruntime": _onnxruntime,
    "transformers": _framework,
    "paddlenlp": _framework,
}
