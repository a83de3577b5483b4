"""Models in Paddle's predictor give what they give in Paddle, and damaged files are refused."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt.compress.export import paddle_inference
from paddle import nn
from paddle.static import InputSpec

INPUT = [InputSpec([None, 64], "float32", "x")]


class CodedLinear(nn.Layer):
    """A product with codes of 4 bits, two in a byte, as quantised layers compute it."""

    def __init__(self, rows, columns, seed):
        super().__init__()
        rng = np.random.default_rng(seed)
        packed = rng.integers(0, 256, (rows // 2, columns)).astype("uint8")
        self.register_buffer("packed", paddle.to_tensor(packed))
        scale = rng.uniform(0.01, 0.02, (1, columns)).astype("float32")
        self.register_buffer("scale", paddle.to_tensor(scale))

    def forward(self, x):
        wide = self.packed.astype("int32")
        codes = paddle.stack([wide % 16, wide // 16], axis=1).reshape([-1, wide.shape[1]])
        return paddle.matmul(x, (codes.astype("float32") - 8.0) * self.scale)


@pytest.fixture(scope="module")
def net():
    paddle.seed(0)
    made = nn.Sequential(CodedLinear(64, 96, 0), nn.GELU(), nn.Dropout(0.5), nn.Linear(96, 7))
    return made.eval()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-6),
        ({"threads": 2}, 1e-6),
        ({"onednn": True}, 1e-5),
        ({"onednn": True, "bfloat16": True}, 0.02),
    ],
    ids=str,
)
def test_outputs_are_those_of_paddle(net, options, tolerance, tmp_path):
    paddle_inference.save(net, tmp_path / "m", INPUT)
    predictor = paddle_inference.Predictor(tmp_path / "m", **options)
    for rows in (1, 5):
        x = np.random.default_rng(rows).standard_normal((rows, 64)).astype("float32")
        (found,) = predictor.run(x)
        expected = net(paddle.to_tensor(x)).numpy()
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_codes_stay_small_in_the_file(net, tmp_path):
    paddle_inference.save(net, tmp_path / "m", INPUT)
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["m.json", "m.pdiparams", "m.sha256"]
    codes = 64 * 96 // 2
    floats = 4 * (96 + 96 * 7 + 7)
    assert (tmp_path / "m.pdiparams").stat().st_size < codes + floats + 1000


def test_a_model_in_training_is_saved_as_it_evaluates(net, tmp_path):
    net.train()
    paddle_inference.save(net, tmp_path / "m", INPUT)
    assert net.training
    net.eval()
    x = np.ones((2, 64), "float32")
    (found,) = paddle_inference.Predictor(tmp_path / "m").run(x)
    np.testing.assert_allclose(found, net(paddle.to_tensor(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_damage_is_seen(net, tmp_path):
    paddle_inference.save(net, tmp_path / "m", INPUT)
    for suffix in (".json", ".pdiparams", ".sha256"):
        path = tmp_path / f"m{suffix}"
        content = path.read_bytes()
        path.write_bytes(content[:-40])
        with pytest.raises(ValueError, match=f"m{suffix}.* (damaged|truncated)"):
            paddle_inference.Predictor(tmp_path / "m")
        path.unlink()
        with pytest.raises(ValueError, match=f"m{suffix} is missing"):
            paddle_inference.Predictor(tmp_path / "m")
        path.write_bytes(content)


def test_wrong_arguments_are_refused(net, tmp_path):
    with pytest.raises(ValueError, match="inputs must name at least one"):
        paddle_inference.save(net, tmp_path / "m", [])
    with pytest.raises(ValueError, match="there is no folder"):
        paddle_inference.save(net, tmp_path / "no" / "m", INPUT)
    paddle_inference.save(net, tmp_path / "m", INPUT)
    with pytest.raises(ValueError, match="bfloat16 needs onednn=True"):
        paddle_inference.Predictor(tmp_path / "m", bfloat16=True)
    with pytest.raises(ValueError, match="takes 1 inputs, got 2"):
        one = np.ones((1, 64), "float32")
        paddle_inference.Predictor(tmp_path / "m").run(one, one)


def test_a_failure_leaves_what_was_there(net, tmp_path):
    paddle_inference.save(net, tmp_path / "m", INPUT)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}

    class Broken(nn.Layer):
        def forward(self, x):
            raise RuntimeError("cannot be traced")

    with pytest.raises(RuntimeError):
        paddle_inference.save(Broken(), tmp_path / "m", INPUT)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_nan_is_not_passed_on_in_silence(net, tmp_path):
    paddle_inference.save(net, tmp_path / "m", INPUT)
    x = np.full((1, 64), np.nan, "float32")
    assert np.isnan(paddle_inference.Predictor(tmp_path / "m").run(x)[0]).all()
    with pytest.raises(FloatingPointError, match="if those of onednn=False do not"):
        paddle_inference.Predictor(tmp_path / "m", onednn=True).run(x)


def test_a_model_without_parameters_is_refused(tmp_path):
    with pytest.raises(ValueError, match="model has no parameters"):
        paddle_inference.save(nn.GELU(), tmp_path / "m", INPUT)
    assert not list(tmp_path.iterdir())
