"""Sparse checkpoints: bit for bit, whole or not at all; the crossover report."""

import json

import numpy as np
import paddle
import pytest
from oarlock.core_opt import sparse
from oarlock.core_opt.sparse import BSR, COO, CSR, NM, ReLU2FFN, SparseLinear
from oarlock.core_opt.sparse.checkpoint import digest
from paddle import nn


def matrices():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((16, 24)) * (rng.random((16, 24)) < 0.3)
    dense = paddle.to_tensor(values.astype("float32"))
    return {
        "a.csr": CSR.from_dense(dense),
        "a.coo": COO.from_dense(dense.astype("float64")),
        "bsr": BSR.from_dense(dense, block=(4, 8)),
        "nm": NM.from_dense(dense, keep=3, group=8),
        "nothing": CSR.from_dense(paddle.zeros([3, 4])),
    }


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    given = matrices()
    sparse.save(tmp_path / "model.v1", given)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.v1.index.json",
        "model.v1.safetensors",
    ]
    found = sparse.load(tmp_path / "model.v1")
    assert list(found) == sorted(given) or set(found) == set(given)
    for name, matrix in given.items():
        other = found[name]
        assert type(other) is type(matrix) and other.shape == matrix.shape
        assert other.values.dtype == matrix.values.dtype
        assert other.values.numpy().tobytes() == matrix.values.numpy().tobytes()
        for a, b in zip(matrix.structure().values(), other.structure().values()):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("ending", ["safetensors", "index.json"])
def test_a_damaged_file_is_refused_wherever_it_is_hurt(tmp_path, ending):
    sparse.save(tmp_path / "model", matrices())
    file = tmp_path / f"model.{ending}"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 1, 8, len(whole) // 2, len(whole) - 2):
        file.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged|version|not what"):
            sparse.load(tmp_path / "model")
    for at in rng.integers(0, len(whole) - 1, 50):
        hurt = bytearray(whole)
        hurt[at] ^= 1 << int(rng.integers(7))
        if ending == "index.json" and bytes(hurt).split() == whole.split():
            continue  # white space for white space
        file.write_bytes(bytes(hurt))
        with pytest.raises(ValueError, match="damaged|version"):
            sparse.load(tmp_path / "model")
    file.write_bytes(whole)
    sparse.load(tmp_path / "model")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda i: i.update(version=2), "version 2; version 1 can be read"),
        (lambda i: i.pop("sha256"), "lacks sha256"),
        (lambda i: i["matrices"]["bsr"].update(format="odd"), "no known format"),
        (lambda i: i["matrices"].update(more=i["matrices"]["bsr"]), "not what"),
        (lambda i: i["matrices"]["bsr"].update(shape=[16, 16]), "indices must be in|pointers"),
        (lambda i: i["matrices"]["nm"].pop("group"), "not what"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, change, message):
    sparse.save(tmp_path / "model", matrices())
    file = tmp_path / "model.index.json"
    index = json.loads(file.read_text())
    change(index)
    index["index_sha256"] = digest(index)
    file.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        sparse.load(tmp_path / "model")


def test_a_save_that_fails_leaves_the_files_as_they_were(tmp_path, monkeypatch):
    sparse.save(tmp_path / "model", matrices())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        sparse.save(tmp_path / "model", {"other": matrices()["bsr"]})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(FileNotFoundError):
        sparse.load(tmp_path / "absent")


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(ValueError, match="matrices must be a dict"):
        sparse.save(tmp_path / "model", {})
    with pytest.raises(ValueError, match=r"matrices\['w'\] must be one of csr"):
        sparse.save(tmp_path / "model", {"w": paddle.ones([2])})
    with pytest.raises(ValueError, match="must be float32 or float64"):
        half = CSR.from_dense(paddle.ones([2, 2]))
        sparse.save(tmp_path / "model", {"w": half.with_values(half.values.astype("bfloat16"))})
    assert list(tmp_path.iterdir()) == []


def test_restore_refuses_another_structure(tmp_path):
    paddle.seed(0)
    first = nn.Sequential(SparseLinear.from_linear(nn.Linear(8, 8), block=(4, 4)))
    sparse.export(tmp_path / "model", first)
    mask = np.array([[True, False], [True, True]])
    second = nn.Sequential(SparseLinear.from_linear(nn.Linear(8, 8), block=(4, 4), mask=mask))
    with pytest.raises(ValueError, match="layer '0' is .* of another structure"):
        sparse.restore(tmp_path / "model", second)
    third = nn.Sequential(nn.Linear(8, 8), SparseLinear.from_linear(nn.Linear(8, 8)))
    with pytest.raises(ValueError, match="must have the same layers"):
        sparse.restore(tmp_path / "model", third)
    with pytest.raises(ValueError, match="model has no SparseLinear"):
        sparse.export(tmp_path / "other", nn.Linear(2, 2))


def test_crossover_measures_and_tells(tmp_path):
    report = sparse.crossover(
        tokens=64, in_features=64, out_features=96, densities=(0.1, 0.5), rounds=1
    )
    assert [row.kind for row in report.rows] == ["bsr"] * 2 + ["csr"] * 2 + ["nm"] + [
        "activations"
    ] * 2
    assert all(row.sparse > 0 and row.dense > 0 for row in report.rows)
    text = report.text()
    assert (
        "64 tokens, weight 64 x 96" in text and "sparse wins above" in text or "did not win" in text
    )
    report.plot(tmp_path / "crossover.png")
    assert (tmp_path / "crossover.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="kinds must be one of"):
        sparse.crossover(tokens=4, in_features=4, out_features=4, kinds=["odd"])
    with pytest.raises(ValueError, match="block must divide"):
        sparse.crossover(tokens=4, in_features=4, out_features=4, kinds=["bsr"])


def test_crossover_interpolates_where_sparse_begins_to_win():
    from oarlock.core_opt.sparse.crossover import Crossover, Row

    def report(times):
        rows = tuple(
            Row(kind="bsr", density=density, sparse=time, dense=1.0) for density, time in times
        )
        return Crossover(
            tokens=1, shape=(1, 1), block=(16, 16), rounds=1, machine="here", rows=rows
        )

    assert report([(0.1, 0.5), (0.3, 1.5)]).wins_above("bsr") == pytest.approx(0.8)
    assert report([(0.1, 0.5), (0.3, 0.9)]).wins_above("bsr") == pytest.approx(0.7)
    assert report([(0.1, 1.5), (0.3, 2.0)]).wins_above("bsr") is None
    assert "bsr 16 x 16: sparse wins above 80% here" in report([(0.1, 0.5), (0.3, 1.5)]).text()
    with pytest.raises(ValueError, match="kind must be one that was measured"):
        report([(0.1, 0.5)]).wins_above("csr")


def ffn(path, **options):
    paddle.seed(0)
    return ReLU2FFN(12, 40, path=path, **{"switch": 1.0 if path else 0.25} | options)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"target": 0.2}])
def test_relu2_ffn_is_the_same_on_both_paths(options):
    results = []
    for path in ("native", "paddle"):
        layer = ffn(path, **options)
        x = paddle.to_tensor(
            np.random.default_rng(0).standard_normal((2, 9, 12)), "float32", stop_gradient=False
        )
        for _ in range(3):
            y = layer(x)
        paddle.square(y).sum().backward()
        found = [y, x.grad, layer.threshold, *(p.grad for p in layer.parameters())]
        results.append([one.numpy() for one in found])
    for ours, wanted in zip(*results):
        np.testing.assert_allclose(ours, wanted, atol=1e-4)


@pytest.mark.parametrize("path", ["native", "paddle"])
def test_relu2_ffn_steers_to_its_target(path):
    layer, x = ffn(path, target=0.1), paddle.randn([200, 12])
    for _ in range(200):
        layer(x)
    assert layer.active == pytest.approx(0.1, abs=0.01)
    layer.eval()
    before = layer.threshold.item()
    layer(x)
    assert layer.threshold.item() == before


def test_relu2_ffn_skips_zeros_once_there_are_enough(monkeypatch):
    from oarlock.native.paddle import sparse as kernels

    calls = []
    whole = kernels.relu2_ffn_measured

    def counted(*arguments, **options):
        calls.append(1)
        return whole(*arguments, **options)

    monkeypatch.setattr(kernels, "relu2_ffn_measured", counted)
    layer, x = ffn(None), paddle.randn([50, 12])
    first = layer(x)
    assert layer.active > 0.25 and not calls  # half of the neurons are active
    layer.fc_in.bias.set_value(layer.fc_in.bias - 1.0)
    layer(x)
    assert layer.active < 0.25 and not calls  # that is known now
    second = layer(x)
    assert len(calls) == 1
    layer.switch = 0.0
    np.testing.assert_allclose(layer(x).numpy(), second.numpy(), atol=1e-5)
    assert len(calls) == 1 and not np.array_equal(first.numpy(), second.numpy())


def test_relu2_ffn_refuses():
    with pytest.raises(ValueError, match="target must lie in"):
        ReLU2FFN(4, 8, target=1.0)
    with pytest.raises(ValueError, match='path="native" takes float32'):
        layer = ffn("native")
        layer.to(dtype="float64")
        layer(paddle.ones([2, 12], "float64"))
