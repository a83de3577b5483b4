"""Models in other formats: our own reading of them, and that of the peers as ``parity/record_written.py`` recorded it."""

import dataclasses
import importlib.util
import json
import shutil
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest
from oarlock.native import quant

from oarlock.llm import loading, models, writing
from oarlock.llm.engine import LLM, packing
from oarlock.llm.loading.blocks import FORMATS, BlockArray
from oarlock.llm.tokenizers import ByteTokenizer
from oarlock.llm.writing import coding, pieces

PARITY = Path(__file__).parent / "parity"
spec = importlib.util.spec_from_file_location("record_written", PARITY / "record_written.py")
record = importlib.util.module_from_spec(spec)
spec.loader.exec_module(record)
RECORDED = json.loads((PARITY / "expected" / "written.json").read_text())
TOKENS = np.array([[3, 77, 270, 12, 0, 131, 200, 5, 9, 64]])
TEXTS = ["The cat sat", "  two  spaces", "秦川雄帝宅 é🙂", "1,234 <s> <|im_end|>\n\n\tx", ""]


def logits(path):
    model, _ = loading.load_model(path)
    return model(paddle.to_tensor(TOKENS % model.config.vocab_size)).numpy()


@pytest.mark.parametrize("case", record.CASES, ids=lambda case: case[1])
def test_files_are_those_that_the_peers_read(tmp_path, case):
    source, target, options = case
    path = record.make(tmp_path, source, target, options)
    recorded = RECORDED[target]
    assert record.checksum(path) == recorded["sha256"]
    assert recorded.get("tokens", True)
    most = {"int8": 0.05, "int4": 0.3}.get(
        options.get("weights"), 0.01
    )  # the peer's cache is float16
    assert recorded.get("transformers", 0.0) < 1e-5 and recorded.get("llama.cpp", 0.0) < most


@pytest.mark.parametrize("target", ["x.gguf", "x"])
@pytest.mark.parametrize(
    "name", ["gpt2", "bloom", "llama", "qwen2", "mixtral", "glm", "gpt2-q8_0.gguf", "mixtral-f16.gguf", "llama-q4_k_m.gguf"]
)  # fmt: skip
def test_numbers_and_texts_stay(fixtures, tmp_path, name, target):
    dtype = "fp32" if target == "x" and "_" in name else "keep"
    written = writing.convert(fixtures / name, tmp_path / target, dtype=dtype)
    np.testing.assert_allclose(logits(written.path), logits(fixtures / name), atol=2e-6)
    before, after = (loading.load(path).text for path in (fixtures / name, written.path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [target]  # and nothing partial
    if before.tokenizer is None:
        assert after.tokenizer is None
        assert bool(written.notes) == (target == "x.gguf" and bool(before.eos))
        return
    for text in TEXTS:
        for special in (False, True):
            assert before.encode(text, special=special) == after.encode(text, special=special)
    assert (before.bos, set(before.eos), before.adds_bos) == (after.bos, set(after.eos), after.adds_bos)  # fmt: skip
    assert before.chat_template == after.chat_template
    assert loading.load(fixtures / name).generation == pytest.approx(loading.load(written.path).generation)  # fmt: skip


@pytest.mark.parametrize("weights, form", [("int8", "q8_0"), ("int4", "q4_0")])
@pytest.mark.parametrize("name", ["llama-f16.gguf", "qwen2", "gpt2", "bloom", "mixtral", "glm", "llama-q4_k_m.gguf", "llama-gptq4", "llama-gptq8", "llama-awq"])  # fmt: skip
def test_a_quantised_file_is_the_model_rounded_when_it_is_read(
    fixtures, tmp_path, name, weights, form
):
    """To the bit: the same log-probabilities, from codes that the file holds."""
    path = writing.quantize(fixtures / name, tmp_path / "x.gguf", weights=weights).path
    parameters = loading.load(path).parameters
    coded = [one for one in parameters.values() if isinstance(one, BlockArray)]
    assert {one.format.name for one in coded} == {form, "q8_0"}
    tokens = [TOKENS[0] % 32]
    wanted = LLM(fixtures / name, weights=weights).score(tokens)
    found = LLM(path, weights=weights).score(tokens)
    assert found == wanted


def test_codes_of_the_same_format_stay(fixtures, tmp_path):
    path = writing.quantize(fixtures / "bloom-q8_0.gguf", tmp_path / "x.gguf", weights="int8").path
    before, after = (loading.load(one).parameters for one in (fixtures / "bloom-q8_0.gguf", path))
    name = "blocks.0.attention.query.weight"
    np.testing.assert_array_equal(before[name].rows, after[name].rows)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_coded_rows_are_those_of_the_format(kind):
    values = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    rows = coding.encode(kind, values, name="x")
    form = next(one for one in FORMATS.values() if one.name == kind)
    decoded = BlockArray(format=form, rows=rows).dequantize()
    format = {"q8_0": "int8", "q4_0": "int4"}[kind]
    wanted = quant.Matrix.pack(values, format=format, transposed=True).dequantize().T
    np.testing.assert_array_equal(decoded, wanted)


def test_what_is_rounded_anew_is_told(fixtures, tmp_path):
    def told(name, weights):
        path = tmp_path / "x.gguf"
        return writing.quantize(fixtures / name, path, weights=weights, force=True).rounded_anew

    assert told("llama-gptq4", "int4") == told("llama-gptq4", "int8") == told("llama", "int4") == {}
    assert told("llama-awq", "int4") == {"awq of 4 bits": 7} and told("llama-awq", "int8") == {}
    assert told("llama-gptq4-ordered", "int8") == {"gptq of 4 bits": 7}
    assert told("llama-q4_k_m.gguf", "int4") == {"q6_k": 3, "q4_k": 4, "q5_0": 1}


def test_a_quantised_folder_can_be_spelt_out(fixtures, tmp_path):
    path = writing.convert(fixtures / "llama-awq", tmp_path / "x", dtype="fp32").path
    assert "quantization_config" not in json.loads((path / "config.json").read_text())
    before, after = (loading.load_model(one)[0] for one in (fixtures / "llama-awq", path))
    for name, tensor in before.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), after.state_dict()[name].numpy())


def test_rows_that_blocks_do_not_fill_stay_floats(fixtures, tmp_path):
    written = writing.quantize(fixtures / "llama", tmp_path / "x.gguf", weights="int4")
    assert written.floats == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    parameters = loading.load(written.path).parameters
    assert parameters.format("blocks.0.feed_forward.down.weight") == "bfloat16"


def test_files_of_llama2c_and_rwkv_cpp(shared_data, tmp_path):
    source = shared_data("weights/stories260K") / "stories260K.bin"
    wanted = LLM(source).generate("Once upon a time", record_params())[0].text
    for target in ("x.gguf", "x"):
        writing.convert(source, tmp_path / target)
        assert LLM(tmp_path / target).generate("Once upon a time", record_params())[0].text == wanted  # fmt: skip
    source = shared_data("weights/tiny_rwkv") / "tiny-rwkv-4v0-660K-FP32.bin"
    with pytest.raises(ValueError, match="not rwkv4: write a folder of our own"):
        writing.convert(source, tmp_path / "y.gguf")
    path = writing.convert(source, tmp_path / "y", format="oarlock").path
    (before, _), (after, _) = loading.load_model(source), loading.load_model(path)
    for name, tensor in before.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), after.state_dict()[name].numpy())
    assert models.name_of(models.load(path)) == "rwkv4"


def record_params():
    from oarlock.llm.engine import SamplingParams

    return SamplingParams(max_tokens=20, temperature=0.0)


def test_scaled_positions_go_there_and_back(fixtures, tmp_path):
    from oarlock.llm.models.rope import RopeScaling

    linear = RopeScaling(kind="linear", factor=2.0)
    yarn = RopeScaling(kind="yarn", factor=4.0, original_length=16, length_factor=1.25)
    llama3 = RopeScaling(kind="llama3", factor=8.0, original_length=8192)
    shorter = RopeScaling(kind="llama3", factor=4.0, original_length=500)
    for scaling in (linear, yarn, llama3, shorter):
        model = _llama(rope_scaling=scaling)
        models.save(model, tmp_path / "own")
        gguf = writing.convert(tmp_path / "own", tmp_path / "x.gguf", force=True).path
        folder = writing.convert(gguf, tmp_path / "x", force=True).path
        for path in (gguf, folder):
            np.testing.assert_allclose(logits(path), logits(tmp_path / "own"), atol=2e-6)
        found = loading.load(folder).config.rope_scaling
        assert (found.kind, found.factor) == (scaling.kind, scaling.factor)
        assert scaling.kind == "linear" or found.original_length == scaling.original_length
    folder = writing.convert(fixtures / "llama-f16.gguf", tmp_path / "z").path
    assert loading.load(folder).config.rope_scaling == loading.load(fixtures / "llama").config.rope_scaling  # fmt: skip
    other = RopeScaling(kind="divided", divisors=(1.0, 2.0) * 4)
    models.save(_llama(rope_scaling=other), tmp_path / "own")
    with pytest.raises(ValueError, match="divided by numbers that no rope_scaling"):
        writing.convert(tmp_path / "own", tmp_path / "y")
    dynamic = RopeScaling(kind="dynamic", factor=4.0, original_length=16)
    models.save(_llama(rope_scaling=dynamic), tmp_path / "own")
    with pytest.raises(
        ValueError, match="rope_scaling must be linear, yarn or llama3 .* got dynamic"
    ):
        writing.convert(tmp_path / "own", tmp_path / "y.gguf")
    writing.convert(tmp_path / "own", tmp_path / "y")
    assert loading.load(tmp_path / "y").config.rope_scaling == dynamic


def _llama(**fields):
    sizes = dict(vocab_size=300, hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64)
    config = models.llama.LlamaConfig(**sizes, max_length=64, **fields)
    return models.create("llama", config, seed=0)


@pytest.mark.parametrize(
    "name, target, options, message",
    [
        ("llama-q4_k_m.gguf", "x", {}, "dtype must be fp32, fp16 or bf16: .* is made of q6_k"),
        ("mistral", "x.gguf", {}, "window must not hide tokens, but is 6 of 32 positions"),
        ("llama", "x.bin", {}, r"target must be a .gguf file or a folder"),
        ("llama", "x", {"format": "onnx"}, "format must be one of hugging face, gguf, oarlock"),
        ("llama", "x", {"dtype": "int8"}, "dtype must be one of keep, fp32, fp16, bf16"),
        ("llama", "x", {"pre": "gpt-2"}, "pre is for GGUF files only"),
        ("llama", "x.gguf", {"pre": "mine"}, "pre must be one of gpt-2"),
        ("llama", "no/x", {}, "target must lie in a folder that is there"),
        ("llama", "x.gguf", {"max_length": 33}, "max_length must be in 1..32"),
    ],
)
def test_what_cannot_be_written_is_refused(fixtures, tmp_path, name, target, options, message):
    with pytest.raises(ValueError, match=message):
        writing.convert(fixtures / name, tmp_path / target, **options)
    assert not list(tmp_path.iterdir())


def test_bad_quantisations_are_refused(fixtures, tmp_path):
    for target, weights, message in (
        ("x.gguf", "bf16", "weights must be one of int8, int4"),
        ("x", "int8", "target must be a .gguf file"),
    ):
        with pytest.raises(ValueError, match=message):
            writing.quantize(fixtures / "llama", tmp_path / target, weights=weights)
    model = _llama()
    model.blocks[0].attention.query.weight.set_value(np.full((32, 32), np.inf, np.float32))
    models.save(model, tmp_path / "own")
    with pytest.raises(ValueError, match="blk.0.attn_q.weight: weight has NaN or infinite numbers"):
        writing.quantize(tmp_path / "own", tmp_path / "x.gguf", weights="int8")
    model.blocks[0].attention.query.weight.set_value(np.full((32, 32), 1e5, np.float32))
    models.save(model, tmp_path / "own")
    with pytest.raises(ValueError, match="up to 100000, but float16 ends at 65504"):
        writing.convert(tmp_path / "own", tmp_path / "y", dtype="fp16")
    assert [p.name for p in tmp_path.iterdir()] == ["own"]


def test_tokenizers_without_a_place_are_refused(fixtures, tmp_path, made):
    from oarlock.llm.writing import gguf_tokenizer

    text = loading.load(fixtures / "llama").text

    def of(tokenizer):
        other = dataclasses.replace(text, tokenizer=tokenizer)
        return gguf_tokenizer.describe(other, 1000, architecture="llama")

    for tokenizer, message in (
        (ByteTokenizer(), "must be BPE, SentencePiece's or llama2.c's"),
        (made["unigram"], "tokenizer is no BPE model"),
        (made["rwkv-world"], "must be BPE"),
    ):
        with pytest.raises(ValueError, match=message):
            of(tokenizer)
    assert len(of(made["sentencepiece-bpe"]).metadata["tokenizer.ggml.tokens"]) == 1000
    with pytest.raises(ValueError, match="tokenizer must have at most the model's 10 tokens"):
        gguf_tokenizer.describe(text, 10, architecture="llama")


def test_a_tokenizer_json_has_the_scores_of_the_model_it_was_made_of(fixtures):
    folder = fixtures / "llama"
    from oarlock.llm.tokenizers import BPETokenizer, SentencePieceTokenizer

    of_json = pieces.of_merges(BPETokenizer.from_file(folder / "tokenizer.json"))
    of_model = pieces.of_sentence_piece(
        SentencePieceTokenizer.from_file(folder / "tokenizer.model")
    )
    assert (of_json.texts, of_json.types) == (of_model.texts, of_model.types)
    assert SentencePieceTokenizer(of_model.model()).encode("The cat") == SentencePieceTokenizer(of_json.model()).encode("The cat")  # fmt: skip


def test_targets_are_replaced_only_on_request(fixtures, tmp_path):
    source = shutil.copytree(fixtures / "llama", tmp_path / "source")
    for target in (tmp_path / "x.gguf", tmp_path / "x"):
        writing.convert(source, target)
        with pytest.raises(ValueError, match="is there already"):
            writing.convert(source, target)
        writing.convert(source, target, force=True, dtype="fp16")
    assert loading.load(tmp_path / "x").parameters["embedding.weight"].dtype == np.float16
    with pytest.raises(ValueError, match="target must not be the source"):
        writing.convert(source, source, force=True)
    (tmp_path / "x" / "mine").mkdir()
    (tmp_path / "other").mkdir()
    for folder in (tmp_path / "x", tmp_path / "other", tmp_path):
        with pytest.raises(ValueError, match="holds something other than a model"):
            writing.convert(source, folder, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "source", "x", "x.gguf"]


def test_an_interruption_leaves_what_was_there(fixtures, tmp_path):
    for target in (tmp_path / "x.gguf", tmp_path / "x"):
        path = writing.convert(fixtures / "llama", target).path
        before = record.checksum(path)

        def interrupt(name, done, total):
            if done > total / 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            writing.convert(fixtures / "qwen2", target, force=True, progress=interrupt)
        assert record.checksum(path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "x.gguf"]


def test_memory_holds_a_tensor_at_a_time(tmp_path):
    config = models.llama.LlamaConfig(
        vocab_size=64, hidden_size=384, num_layers=8, num_heads=4, intermediate_size=384
    )
    models.save(models.create("llama", config, seed=0), tmp_path / "own")
    size = (tmp_path / "own" / "model.safetensors").stat().st_size
    assert size > 30e6
    for act in (
        lambda: writing.quantize(tmp_path / "own", tmp_path / "x.gguf", weights="int4"),
        lambda: writing.convert(tmp_path / "own", tmp_path / "x", dtype="bf16"),
    ):
        peak = _peak(act)
        assert peak < 6e6, f"{peak / 1e6:.1f} MB for tensors of 0.6 MB"


def test_memory_holds_a_matrix_of_k_formats_at_a_time(tmp_path):
    """Rounding Q4_K and Q6_K anew, into a file and into the engine, of a model of 31 MB in float32."""
    from oarlock.llm.writing import gguf_file, gguf_model
    from oarlock.llm.writing.tensors import Tensor

    config = models.llama.LlamaConfig(
        vocab_size=64, hidden_size=256, num_layers=12, num_heads=4, intermediate_size=512
    )
    model = gguf_model.describe("llama", config)
    rng = np.random.default_rng(0)

    def kind(name, shape):
        return "float32" if len(shape) == 1 else "q6_k" if "down" in name else "q4_k"

    def content(tensor):
        if tensor.kind == "float32":
            return np.ones(tensor.shape, np.float32)
        form = coding.BLOCKS[tensor.kind]
        size = (tensor.shape[0], tensor.shape[1] // 256, form.num_bytes)
        blocks = rng.integers(0, 256, size).astype(np.uint8)
        small = np.float16([1e-3]).view(np.uint8)
        places = (slice(208, 210),) if tensor.kind == "q6_k" else (slice(0, 2), slice(2, 4))
        for place in places:
            blocks[..., place] = small
        return blocks.reshape(size[0], -1)

    tensors = [
        Tensor(name=part.name, shape=part.shape, kind=kind(part.name, part.shape))
        for part in model.parts.values()
    ]
    metadata = {f"llama.{key}": value for key, value in model.metadata.items()}
    metadata["tokenizer.ggml.model"] = "none"
    gguf_file.write(tmp_path / "k.gguf", "llama", metadata, tensors, content)
    peaks = [
        _peak(act)
        for act in (
            lambda: writing.quantize(tmp_path / "k.gguf", tmp_path / "x.gguf", weights="int4"),
            lambda: packing.pack(
                "llama", config, loading.load(tmp_path / "k.gguf").parameters, weights="int4"
            ),
        )
    ]
    assert max(peaks) < 10e6, peaks


def _peak(act):
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_progress_is_told(fixtures, tmp_path):
    told = []
    writing.convert(fixtures / "llama", tmp_path / "x.gguf", progress=lambda *one: told.append(one))
    assert told[0][1] == 0 and {total for *_, total in told} == {told[0][2]}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_shards_are_of_the_size_asked_for(fixtures, tmp_path):
    path = writing.convert(fixtures / "llama", tmp_path / "x", shard_bytes=20_000).path
    files = sorted(path.glob("*.safetensors"))
    assert len(files) > 3 and max(file.stat().st_size for file in files[1:-1]) < 22_000
    np.testing.assert_array_equal(logits(path), logits(fixtures / "llama"))
    import safetensors.numpy

    header = safetensors.safe_open(files[0], "numpy")
    assert header.metadata() == {"format": "pt"}
    assert loading.load(path).parameters["embedding.weight"].dtype == ml_dtypes.bfloat16
