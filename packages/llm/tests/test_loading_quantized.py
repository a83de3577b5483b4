"""Quantised folders, which the formats' own libraries wrote (``parity/record_quantized.py``), and broken ones."""

import json
import shutil
import tracemalloc

import ml_dtypes
import numpy as np
import paddle
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oarlock.llm import loading, writing
from oarlock.llm.engine import LLM, packing
from oarlock.llm.loading import awq, compressed_tensors, gptq, quantized
from oarlock.llm.loading.blocks import BlockArray
from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.rounded import Rounded, unpacked
from oarlock.llm.loading.stored import Stored

TOKENS = np.array([[3, 77, 270, 12, 0, 131, 200, 5, 9, 64]]) % 32
#: The format in which each folder's products are exact; None for floats only.
FOLDERS = {
    "llama-gptq4": "q4_0",
    "llama-gptq8": "q8_0",
    "llama-gptq4-ordered": None,
    "llama-awq": "q8_0",
    "llama-packed4": "q4_0",
    "llama-packed4-zeros": "q8_0",
    "llama-packed8": "q8_0",
    "llama-int8": "q8_0",
}
PRODUCT = "blocks.0.feed_forward.down.weight"


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_are_those_of_the_library_that_wrote_the_folder(fixtures, name):
    model, _ = loading.load_model(fixtures / name)
    found = model(paddle.to_tensor(TOKENS)).numpy()
    expected = np.load(fixtures / f"{name}.npy")
    np.testing.assert_allclose(found[:, -expected.shape[1] :], expected, atol=5e-6)


@pytest.mark.parametrize("name, form", FOLDERS.items())
def test_codes_stay_where_that_is_exact(fixtures, name, form):
    parameters = loading.load(fixtures / name).parameters
    values = parameters[PRODUCT]
    if form is None:
        assert values.dtype == np.float32
        return
    assert isinstance(values, BlockArray) and values.format.name == form and values.transposed
    for format in {"q4_0": ("int4", "int8"), "q8_0": ("int8",)}[form]:
        assert packing.keeps(values, format)
        packed = packing._matrix([values], format)
        np.testing.assert_array_equal(packed.dequantize(), values.dequantize())
    if name == "llama-gptq8":  # symmetric codes of eight bits begin there
        blocks = values.rows.reshape(-1, values.format.num_bytes)
        assert blocks[:, 2:].view(np.int8).min() == -128


def test_info_names_the_formats(fixtures):
    formats = loading.load(fixtures / "llama-gptq4").parameters.formats()
    assert set(formats) == {"float16", "gptq of 4 bits"}
    assert loading.load(fixtures / "llama-awq").parameters.format(PRODUCT) == "awq of 4 bits"


@pytest.mark.parametrize("name", ["llama-gptq4", "llama-packed4"])
def test_a_file_of_them_has_the_same_codes(fixtures, tmp_path, name):
    path = writing.quantize(fixtures / name, tmp_path / "x.gguf", weights="int4").path
    before, after = (loading.load(one).parameters[PRODUCT] for one in (fixtures / name, path))
    np.testing.assert_array_equal(before.rows, after.rows)
    tokens = [TOKENS[0]]
    assert LLM(path, weights="int4").score(tokens) == LLM(fixtures / name, weights="int4").score(tokens)  # fmt: skip
    kept = writing.convert(fixtures / name, tmp_path / "y.gguf").path
    assert loading.load(kept).parameters.format(PRODUCT) == "q4_0"


def test_the_engine_runs_them(fixtures):
    for name in FOLDERS:
        expected = np.load(fixtures / f"{name}.npy")[0]
        logprobs = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
        found = LLM(fixtures / name).score(TOKENS)[0][-4:]
        wanted = [row[token] for row, token in zip(logprobs, TOKENS[0, -4:])]
        np.testing.assert_allclose([one.logprob for one in found], wanted, atol=1e-4)


def tensors(**arrays):
    """Tensors of one module, "m", and of what is not rounded."""
    named = {f"m.{name}": values for name, values in arrays.items()} | {"other.weight": np.zeros(3, np.float32)}  # fmt: skip
    return {
        name: Stored(
            name=name,
            shape=values.shape,
            format=values.dtype.name,
            num_bytes=values.nbytes,
            read=lambda values=values: values,
        )
        for name, values in named.items()
    }


def words(values, bits, axis=-1):
    """Numbers packed into int32 along an axis, lowest first."""
    moved = np.moveaxis(np.asarray(values, np.uint64), axis, -1)
    parts = moved.reshape(*moved.shape[:-1], -1, 32 // bits)
    packed = (parts << (np.arange(32 // bits, dtype=np.uint64) * np.uint64(bits))).sum(-1)
    return np.moveaxis(packed.astype(np.uint32).view(np.int32), -1, axis)


def made(num_in, num_out, size, bits, *, seed=0, kind=np.float16):
    """Codes [O, I], zeros and scales [O, G] of a drawn matrix."""
    rng = np.random.default_rng(seed)
    q = rng.integers(0, 1 << bits, (num_out, num_in))
    z = rng.integers(0, 1 << bits, (num_out, num_in // size))
    s = rng.uniform(0.5, 2, (num_out, num_in // size)).astype(kind)
    return q, z, s


def spelt(q, z, s, groups):
    return s.astype(np.float32)[:, groups] * (q - z[:, groups])


def result(decoded, shape):
    weight = decoded["m.weight"]
    assert weight.shape == shape and "other.weight" in decoded and len(decoded) == 2
    return weight.read()


def dense(values):
    return values.dequantize() if isinstance(values, BlockArray) else values


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [8, 32, 64, 128])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("order", ["absent", "plain", "shuffled"])
def test_gptq_of_any_kind(bits, size, version, order):
    num_in, num_out = 128, 24
    q, z, s = made(num_in, num_out, size, bits)
    groups = np.arange(num_in) // size
    if order == "shuffled":
        groups = np.random.default_rng(1).permutation(groups)
    less = (z - (version == "gptq")) % (1 << bits)
    parts = dict(qweight=words(q.T, bits, 0), qzeros=words(less.T, bits), scales=s.T)
    if order != "absent":
        parts["g_idx"] = groups.astype(np.int32)
    given = Fields({"bits": bits, "group_size": -1 if size == num_in else size, "checkpoint_format": version}, "x")  # fmt: skip
    found = result(gptq.decoded(given, tensors(**parts)), (num_out, num_in))
    np.testing.assert_array_equal(dense(found), spelt(q, z, s, groups))
    coded = size % 32 == 0 and bits == 4 and (order != "shuffled" or size == num_in)
    assert isinstance(found, BlockArray) == coded


def test_awq_of_any_group():
    for size in (16, 32, 64):
        q, z, s = made(64, 16, size, 4)
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        mixed = lambda values: values.T.reshape(len(values.T), -1, 8)[..., order].reshape(len(values.T), -1)  # fmt: skip # noqa: E731
        parts = dict(qweight=words(mixed(q), 4), qzeros=words(mixed(z), 4), scales=s.T)
        found = result(awq.decoded(Fields({"bits": 4}, "x"), tensors(**parts)), (16, 64))
        np.testing.assert_array_equal(dense(found), spelt(q, z, s, np.arange(64) // size))
        assert isinstance(found, BlockArray) == (size % 32 == 0)


def scheme(bits, **more):
    weights = {"num_bits": bits, "type": "int", "strategy": "group"}
    return Fields({"config_groups": {"group_0": {"weights": weights, **more}}}, "x")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("order", ["absent", "none", "plain", "shuffled"])
@pytest.mark.parametrize("packed", [True, False])
def test_compressed_tensors_of_any_kind(bits, order, packed):
    num_in, num_out, size, half = 96, 16, 32, 1 << (bits - 1)
    q, z, s = made(num_in, num_out, size, bits)
    groups = np.arange(num_in) // size
    if order == "shuffled":
        groups = np.random.default_rng(1).permutation(groups)
    parts = {"weight_scale": s}
    if packed:
        parts["weight_packed"] = words(q, bits)
        parts["weight_shape"] = np.array([num_out, num_in])
        parts["weight_zero_point"] = words(z, bits, 0)
    else:
        parts["weight"] = (q - half).astype(np.int8)
        parts["weight_zero_point"] = (z - half).astype(np.int8)
    if order != "absent":
        index = np.full(num_in, -1) if order == "none" else groups
        parts["weight_g_idx"] = index.astype(np.int32)
    found = result(compressed_tensors.decoded(scheme(bits), tensors(**parts)), (num_out, num_in))
    np.testing.assert_array_equal(dense(found), spelt(q, z, s, groups))
    assert isinstance(found, BlockArray) == (bits == 4 and order != "shuffled")


def test_one_scale_for_rows_or_for_all():
    q = np.random.default_rng(0).integers(-127, 128, (4, 64)).astype(np.int8)
    for shape in ((4, 1), (1, 1), (1,), ()):
        s = np.full(shape, 0.5, np.float32)
        found = compressed_tensors.decoded(scheme(8), tensors(weight=q, weight_scale=s))
        np.testing.assert_array_equal(dense(result(found, (4, 64))), 0.5 * q)


def test_scales_that_float16_lacks_are_spelt_out():
    q = np.ones((2, 32), np.int8)
    for scale, coded in ((0.5, True), (1e-9, False), (1e6, False), (1 + 2**-20, False)):
        given = Rounded(
            codes=q, scales=np.full((2, 1), scale, np.float32), zeros=np.zeros((2, 1), np.int16)
        )
        values = given.values()
        assert isinstance(values, BlockArray) == coded
        np.testing.assert_array_equal(dense(values), q * np.float32(scale))
    tiny = np.full((2, 1), 1e-5, ml_dtypes.bfloat16)
    found = compressed_tensors.decoded(scheme(8), tensors(weight=q, weight_scale=tiny))
    np.testing.assert_array_equal(dense(result(found, (2, 32))), q * tiny.astype(np.float32))


def test_unpacking():
    np.testing.assert_array_equal(unpacked(np.array([0x7654_3210], np.int32), 4), [[0, 1, 2, 3, 4, 5, 6, 7]])  # fmt: skip
    np.testing.assert_array_equal(unpacked(np.array([-1, 0x0302_0100], np.int32), 8), [[255] * 4, [0, 1, 2, 3]])  # fmt: skip


GPTQ = dict(qweight=np.zeros((8, 8), np.int32), qzeros=np.zeros((2, 1), np.int32), scales=np.ones((2, 8), np.float16))  # fmt: skip


@pytest.mark.parametrize(
    "method, fields, changes, message",
    [
        ("gptq", {"bits": 3}, {}, "bits must be 4 or 8, got 3"),
        ("gptq", {"bits": 4, "group_size": 0}, {}, "group_size must be -1 or positive, got 0"),
        ("gptq", {"bits": 4, "checkpoint_format": "marlin"}, {}, "checkpoint_format must be 'gptq' or 'gptq_v2'"),
        ("gptq", {"bits": 4, "dynamic": {"a": 1}}, {}, "dynamic must be"),
        ("gptq", {"bits": 4, "group_size": 32}, {"scales": None}, "m has qweight but no scales"),
        ("gptq", {"bits": 4, "group_size": 16}, {}, r"do not fit each other: qweight \(8, 8\)"),
        ("gptq", {"bits": 4, "group_size": 32}, {"scales": np.ones((2, 8), np.int8)}, "m.scales must be float"),
        ("gptq", {"bits": 4, "group_size": 32}, {"g_idx": np.full(64, 2, np.int32)}, r"m.g_idx must hold groups in 0..1, got 2 to 2"),
        ("awq", {"bits": 8}, {}, "bits must be 4, got 8"),
        ("awq", {"bits": 4, "version": "gemv"}, {}, "version must be 'gemm', got 'gemv'"),
        ("awq", {"bits": 4}, {"scales": np.ones((3, 64), np.float16)}, "do not fit each other"),
        ("bitsandbytes", {}, {}, "quant_method must be one of awq, compressed-tensors, gptq"),
        ("compressed-tensors", {}, {}, "has no config_groups"),
        ("compressed-tensors", {"config_groups": {}}, {}, "must have weights of one size"),
    ],
)  # fmt: skip
def test_unfit_folders_are_refused(method, fields, changes, message):
    arrays = {name: values for name, values in {**GPTQ, **changes}.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        found = quantized.decoded(Fields({"quant_method": method, **fields}, "folder"), tensors(**arrays))  # fmt: skip
        found["m.weight"].read()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input_activations": {"num_bits": 8}}, "input_activations must be absent"),
        ({"format": "float-quantized"}, "format must be one of pack-quantized"),
        ({"weights": {"num_bits": 8, "type": "float"}}, "type must be 'int', got 'float'"),
        ({"weights": {"num_bits": 4, "strategy": "block"}}, "strategy must be"),
        ({"weights": None}, "has no weights"),
    ],
)
def test_unfit_schemes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        compressed_tensors.decoded(scheme(4, **changes), {})


def test_shapes_that_would_fill_the_memory_are_refused():
    """Few bytes of file that stand for many numbers."""
    scales = np.ones((1, 100_000), np.float16)
    index = np.zeros(8, np.int32)
    packed = np.zeros((100_000, 1), np.int32)
    for shape in ((100_000, 8), (1 << 40, 8), (100_000, 1 << 40)):
        parts = dict(weight_packed=packed, weight_scale=scales, weight_shape=np.array(shape), weight_g_idx=index)  # fmt: skip
        tracemalloc.start()
        with pytest.raises(ValueError, match="do not fit each other"):
            compressed_tensors.decoded(scheme(4), tensors(**parts))["m.weight"].read()
        assert tracemalloc.get_traced_memory()[1] < 1e6
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape, message",
    [
        (np.array([0, 8]), r"m.weight_shape must be positive, got \(0, 8\)"),
        (np.array([8]), "m.weight_shape must be two integers"),
        (None, "m has a rounded weight but no weight_shape"),
    ],
)
def test_bad_shapes_of_packed_weights_are_named(shape, message):
    parts = dict(weight_packed=np.zeros((8, 1), np.int32), weight_scale=np.ones((8, 1), np.float16))
    parts |= {} if shape is None else {"weight_shape": shape}
    with pytest.raises(ValueError, match=message):
        compressed_tensors.decoded(scheme(4), tensors(**parts))


@pytest.fixture(scope="module")
def copies(fixtures, tmp_path_factory):
    root = tmp_path_factory.mktemp("quantised")
    return {name: shutil.copytree(fixtures / name, root / name) for name in FOLDERS}


odd = st.one_of(
    st.none(), st.integers(-2, 130), st.booleans(), st.text(max_size=3), st.just({}), st.just([]),
    st.sampled_from(["gptq", "awq", "compressed-tensors", "group", "channel", "int", 1 << 60, -1.5]),
)  # fmt: skip
shapes = st.lists(st.sampled_from([0, 1, 2, 4, 8, 16, 64]), max_size=3).map(tuple)
kinds = st.sampled_from([np.int32, np.int64, np.int8, np.float16, np.float32])


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(data=st.data())
def test_odd_folders_give_an_error_or_a_result(copies, fixtures, data):
    """Fields of another type, tensors that are missing, of other shapes and kinds, of any numbers."""
    name = data.draw(st.sampled_from(sorted(FOLDERS)))
    config = json.loads((fixtures / name / "config.json").read_text())
    arrays = safetensors.numpy.load_file(fixtures / name / "model.safetensors")
    place = config["quantization_config"]
    while data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key]:
            place = place[key]
        else:
            place[key] = data.draw(odd)
    parts = [
        key for key in arrays if not key.endswith((".weight", ".bias")) or name == "llama-int8"
    ]
    for key in data.draw(st.lists(st.sampled_from(sorted(parts)), max_size=2)):
        what = data.draw(st.sampled_from(["missing", "other", "numbers"]))
        if what == "missing":
            arrays.pop(key, None)
        elif what == "other":
            arrays[key] = np.zeros(data.draw(shapes), data.draw(kinds))
        elif key in arrays:
            noise = np.random.default_rng(0).bytes(arrays[key].nbytes)
            arrays[key] = np.frombuffer(noise, arrays[key].dtype).reshape(arrays[key].shape)
    (copies[name] / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(arrays, copies[name] / "model.safetensors")
    tracemalloc.start()
    try:
        with np.errstate(all="ignore"):
            parameters = loading.load(copies[name]).parameters
            for one in parameters:
                assert parameters[one].shape
    except ValueError as error:
        assert str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20e6
