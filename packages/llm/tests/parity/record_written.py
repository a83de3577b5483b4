"""Let llama.cpp and transformers read what ``oarlock.llm.writing`` writes, and record that they could.

    python record_written.py write FOLDER      # with oarlock: the files
    python record_written.py read FOLDER       # with the peers: expected/written.json

For each file the largest difference of the peer's logits from those of the fixture it was made of, whether it makes
the same tokens of texts, and a checksum: the tests compare the checksums of what is written today. Those of int8 and int4 hold rounded weights. Last recorded
with llama-cpp-python 0.3.36, transformers 4.57.6, gguf 0.19.0 and torch 2.13.0.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FIXTURES, EXPECTED = HERE.parent / "fixtures", HERE / "expected" / "written.json"
TOKENS = np.array([3, 77, 270, 12, 0, 131, 200, 5, 9, 64])
#: What is written: source, target, options; with "weights" by ``quantize``.
CASES = [
    ("gpt2", "gpt2.gguf", {}),
    ("bloom", "bloom.gguf", {}),
    ("llama", "llama.gguf", {"dtype": "fp16"}),
    ("qwen2", "qwen2.gguf", {}),
    ("mixtral", "mixtral.gguf", {}),
    ("glm", "glm.gguf", {}),
    ("llama", "llama-int8.gguf", {"weights": "int8"}),
    ("qwen2", "qwen2-int4.gguf", {"weights": "int4"}),
    ("gpt2-q8_0.gguf", "gpt2", {"dtype": "fp32"}),
    ("bloom-q8_0.gguf", "bloom", {"dtype": "fp32", "shard_bytes": 30_000}),
    ("qwen2-bf16.gguf", "qwen2", {}),
    ("mistral", "mistral", {"dtype": "bf16"}),
    ("mistral-q8_0.gguf", "mistral-q8", {"dtype": "fp32"}),
    ("mixtral-f16.gguf", "mixtral", {"dtype": "fp16"}),
    ("chatglm", "glm", {}),
    ("llama-q4_k_m.gguf", "llama-q4", {"dtype": "fp32"}),
]
TEXTS = ["The cat sat on the mat.", "  two  spaces", "秦川雄帝宅 é🙂", "1,234\n\n\tx", "naïve café"]
LOGITS = {"llama-f16.gguf": "llama", "qwen2-bf16.gguf": "qwen2", "mixtral-f16.gguf": "mixtral"}


def make(folder: Path, source: str, target: str, options: dict) -> Path:
    """One of the cases."""
    from oarlock.llm import writing

    made = writing.quantize if "weights" in options else writing.convert
    return made(FIXTURES / source, folder / target, **options).path


def checksum(path: Path) -> str:
    """Of a file, or of a folder's weights and configuration."""
    files = [path]
    if path.is_dir():
        files = sorted({path / "config.json", *path.glob("*.safetensors*")})
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def write(folder: str) -> None:
    from oarlock.llm import loading

    Path(folder).mkdir(parents=True, exist_ok=True)
    ids = {}
    for source, target, options in CASES:
        print(make(Path(folder), source, target, options))
        text = loading.load(FIXTURES / source).text
        if text.tokenizer is not None:
            ids[target] = [text.encode(one) for one in TEXTS]
    (Path(folder) / "ids.json").write_text(json.dumps(ids))


def llama_cpp(path: Path) -> np.ndarray:
    """Logits [tokens, V]."""
    import llama_cpp as binding

    model = binding.Llama(str(path), n_ctx=64, n_batch=64, logits_all=True, verbose=False)
    tokens = (TOKENS % model.n_vocab()).tolist()
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])


def ids_of(path: Path) -> list[list[int]]:
    """What the peer makes of ``TEXTS``."""
    if path.suffix == ".gguf":
        import llama_cpp as binding

        model = binding.Llama(str(path), vocab_only=True, verbose=False)
        return [model.tokenize(text.encode()) for text in TEXTS]
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(path)
    return [tokenizer(text)["input_ids"] for text in TEXTS]


def transformers(path: Path) -> np.ndarray:
    import torch
    import transformers as t

    t.logging.set_verbosity_error()
    model = t.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        tokens = torch.tensor(TOKENS[None] % model.config.vocab_size)
        return model.eval()(tokens).logits[0].numpy()


def read(folder: str) -> None:
    found = {}
    ids = json.loads((Path(folder) / "ids.json").read_text())
    for source, target, options in CASES:
        path = Path(folder) / target
        wanted = np.load(FIXTURES / f"{LOGITS.get(source, source.removesuffix('.gguf'))}.npy")[0]
        entry = {"sha256": checksum(path)}
        if path.suffix == ".gguf":
            entry["llama.cpp"] = float(np.abs(llama_cpp(path)[-len(wanted) :] - wanted).max())
        else:
            entry["transformers"] = float(np.abs(transformers(path)[-len(wanted) :] - wanted).max())
        if target in ids:
            entry["tokens"] = ids_of(path) == ids[target]
        found[target] = entry
        print(target, entry)
    EXPECTED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
