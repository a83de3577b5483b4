"""ONNX graphs in ONNX Runtime: LLaMAs with a cache, and products with codes in any graph."""

import dataclasses
import resource

import numpy as np
import onnx as library
import onnxruntime
import paddle
import pytest
from onnx import TensorProto, helper, numpy_helper
from oarlock.core_opt.compress.export import codes, llama, onnx, onnx_weights, reference
from oarlock.core_opt.compress.export.files import WriteFailed
from oarlock.core_opt.compress.export.llama import LlamaSizes

SIZES = LlamaSizes(
    vocab_size=50,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=96,
    max_length=32,
    rope_theta=5000.0,
)
TOKENS = np.array([1, 49, 4, 4, 17, 30])


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def empty_past(sizes):
    shape = (1, sizes.num_kv_heads, 0, sizes.head_size)
    names = [f"past_{kind}.{i}" for i in range(sizes.num_layers) for kind in ("key", "value")]
    return {name: np.zeros(shape, np.float32) for name in names}


def run(path, tokens, sizes=SIZES, pieces=(None,)):
    """Logits [T, V] when the text is given in pieces."""
    running, past, found, begin = session(path), empty_past(sizes), [], 0
    names = [one.name for one in running.get_outputs()]
    for end in pieces:
        out = running.run(None, {"tokens": tokens[None, begin:end], **past})
        found.append(out[0][0])
        past = {f"past_{name}": value for name, value in zip(names[1:], out[1:])}
        begin = end
    return np.concatenate(found)


@pytest.fixture(scope="module")
def weights():
    return llama.random(SIZES, seed=0, std=0.2)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("pieces", [(None,), (1, 2, 3, 4, 5, 6), (3, 6)])
def test_the_graph_computes_the_function(tied, pieces, tmp_path):
    weights = llama.random(SIZES, seed=0, std=0.2, tied=tied)
    onnx.write_llama(weights, tmp_path / "m.onnx")
    found = run(tmp_path / "m.onnx", TOKENS, pieces=pieces)
    np.testing.assert_allclose(found, reference.logits(weights, TOKENS), rtol=1e-4, atol=1e-4)


def test_a_batch_is_its_rows(weights, tmp_path):
    onnx.write_llama(weights, tmp_path / "m.onnx")
    running, past = session(tmp_path / "m.onnx"), empty_past(SIZES)
    past = {name: np.repeat(value, 2, axis=0) for name, value in past.items()}
    both = np.stack([TOKENS, TOKENS[::-1]])
    found = running.run(["logits"], {"tokens": both, **past})[0]
    for row, tokens in zip(found, both):
        np.testing.assert_allclose(row, reference.logits(weights, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("bits", "group", "symmetric"),
    [(4, 32, True), (4, 16, False), (3, 32, True), (2, 32, False), (8, 32, True), (6, 32, False)],
)
def test_codes_are_kept_exactly(bits, group, symmetric, weights, tmp_path):
    """Computing in float32 from codes gives what their values give."""

    def quantized(weight):
        one = codes.rounded(weight, bits=bits, group=group)
        if symmetric:
            return one
        zero = np.random.default_rng(0).integers(0, 2**bits, one.zero.shape).astype(np.float32)
        return dataclasses.replace(one, zero=zero, scale=one.scale / 8)

    model = weights.rounded(quantized, [*weights.matrices(), "head"])
    onnx.write_llama(model, tmp_path / "m.onnx", method="blocks", accuracy_level=1)
    found, expected = run(tmp_path / "m.onnx", TOKENS), reference.logits(model, TOKENS)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    used = {node.op_type for node in library.load(tmp_path / "m.onnx").graph.node}
    assert "MatMulNBits" in used


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"method": "blocks", "bits": 8}, 0.06),
        ({"method": "int8"}, 0.06),
        ({"method": "blocks", "bits": 4}, 0.5),
    ],
    ids=str,
)
def test_rounded_weights_are_near(options, most, weights, tmp_path):
    onnx.write_llama(weights, tmp_path / "m.onnx", **options)
    onnx.write_llama(weights, tmp_path / "float.onnx")
    expected = reference.logits(weights, TOKENS)
    error = np.sqrt(np.square(run(tmp_path / "m.onnx", TOKENS) - expected).mean())
    assert error <= most * expected.std()
    assert (tmp_path / "m.onnx").stat().st_size < 0.5 * (tmp_path / "float.onnx").stat().st_size


def products(with_gemm=False):
    """x [.., 32] times two constants, with a bias behind the second."""
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.standard_normal((32, 48)),
        "b": rng.standard_normal((48, 5)),
        "c": np.ones(5),
    }
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"])]
    if with_gemm:
        nodes.append(helper.make_node("Gemm", ["h", "b", "c"], ["y"]))
    else:
        nodes += [
            helper.make_node("MatMul", ["h", "b"], ["z"]),
            helper.make_node("Add", ["z", "c"], ["y"]),
        ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {name: value.astype(np.float32) for name, value in arrays.items()}


@pytest.mark.parametrize("with_gemm", [False, True])
@pytest.mark.parametrize("method", onnx_weights.METHODS)
@pytest.mark.parametrize("rows", [1, 3])
def test_any_graph_is_rewritten(with_gemm, method, rows, tmp_path):
    model, arrays = products(with_gemm)
    kept = {
        name: codes.rounded(arrays[name], bits=8, group=16 if method == "blocks" else None)
        for name in ("a", "b")
    }
    done = onnx_weights.quantize(model, method=method, codes=kept, accuracy_level=1)
    assert done == ["a", "b"]
    onnx.write(model, tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((rows, 32)).astype(np.float32)
    found = session(tmp_path / "m.onnx").run(None, {"x": x})[0]
    if method == "blocks":
        expected = x @ kept["a"].values() @ kept["b"].values() + arrays["c"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    else:
        hidden = dynamic(dynamic(x) @ kept["a"].values())
        expected = hidden @ kept["b"].values() + arrays["c"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("rows", [1, 64])
def test_no_sum_of_int8_is_cut_off(rows, tmp_path):
    """Where all codes and activations are as large as can be, 16 bits do not hold two products."""
    rng = np.random.default_rng(4)
    weight = rng.choice([-1.0, 1.0], (32, 48)).astype(np.float32)
    x = np.ones((rows, 32), np.float32)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", 32), ("y", 48))
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx_weights.quantize(model, method="int8")
    onnx.write(model, tmp_path / "m.onnx")
    found = session(tmp_path / "m.onnx").run(None, {"x": x})[0]
    expected = x @ codes.rounded(weight, bits=8, group=None).values()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def dynamic(x):
    """Activations as DynamicQuantizeLinear rounds them."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(np.clip(-low / scale, 0, 255))
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


@pytest.mark.parametrize("options", [{"method": "blocks", "bits": 8}, {"method": "int8"}], ids=str)
def test_graphs_of_paddle_are_rewritten(options, tmp_path):
    paddle.seed(0)
    net = paddle.nn.Sequential(
        paddle.nn.Linear(64, 128), paddle.nn.GELU(), paddle.nn.Linear(128, 16)
    )
    net.eval()
    x = paddle.randn([7, 64])
    spec = [paddle.static.InputSpec([None, 64], "float32", "x")]
    paddle.onnx.export(net, str(tmp_path / "net"), input_spec=spec, opset_version=17)
    model = library.load(tmp_path / "net.onnx")
    assert len(onnx_weights.quantize(model, **options)) == 2
    onnx.write(model, tmp_path / "small.onnx")
    found = session(tmp_path / "small.onnx").run(None, {"x": x.numpy()})[0]
    expected = net(x).numpy()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "int4"}, "method must be one of 'blocks', 'int8', got 'int4'"),
        ({"bits": 5}, "bits must be one of 4, 8, got 5"),
        ({"group": 24}, "group must be a power of two, got 24"),
        ({"ignore": ["q"]}, "ignore: 'q' fits no constant matrix"),
        ({"ignore": ["*"]}, "no product with a constant matrix that is not ignored"),
        ({"codes": {"c": None}}, "codes: 'c' is no constant matrix to quantise"),
        ({"group": 32}, "b: group must divide the 48 rows, got 32. Ignore it"),
        ({"codes": {"a": codes.rounded(np.ones((32, 47)), bits=4)}}, r"codes\['a'\] must be"),
        (
            {"method": "int8", "codes": {"a": codes.rounded(np.ones((32, 48)), bits=8, group=8)}},
            "int8",
        ),
        (
            {"codes": {"a": codes.rounded(np.ones((32, 48)), bits=4, group=8)}, "group": 16},
            "MatMulNBits",
        ),
    ],
    ids=str,
)
def test_wrong_arguments_change_nothing(options, message):
    model, _ = products()
    before = model.SerializeToString()
    with pytest.raises(ValueError, match=message):
        onnx_weights.quantize(model, **options)
    assert model.SerializeToString() == before


def test_codes_need_a_method(weights, tmp_path):
    model = weights.rounded(lambda w: codes.rounded(w, bits=4, group=32), weights.matrices())
    with pytest.raises(ValueError, match="method must be one of .* for weights that are codes"):
        onnx.write_llama(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_large_models_are_two_files(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "MOST_INSIDE", 1000)
    onnx.write_llama(weights, tmp_path / "m.onnx", method="blocks", bits=8, accuracy_level=1)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < (tmp_path / "m.onnx.data").stat().st_size
    expected = reference.logits(weights, TOKENS)
    assert np.abs(run(tmp_path / "m.onnx", TOKENS) - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("inside", [1000, 1 << 30])
def test_a_full_disk_leaves_nothing(inside, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "MOST_INSIDE", inside)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        with pytest.raises(WriteFailed, match="nothing was left there"):
            onnx.write_llama(weights, tmp_path / "m.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_an_invalid_graph_is_refused(tmp_path):
    model, _ = products()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ValueError, match="model is not valid ONNX"):
        onnx.write(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
