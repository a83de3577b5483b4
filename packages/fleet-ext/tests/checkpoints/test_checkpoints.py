"""Checkpoints: written by some ranks, read by others."""

import json
import os

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.fleet_ext.checkpoints import (
    CheckpointError,
    Mismatch,
    Sharded,
    examine,
    files,
    load,
    save,
)

# fmt: skip
from oarlock.fleet_ext.checkpoints.layout import Box, plan, shares
from ranks import together, well
from safetensors.numpy import load_file
from states import (
    GRIDS,
    SAVED,
    WANTED,
    WHOLE,
    array_of,
    as_had,
    check_same,
    one_step,
    saved_by,
    values,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {size: saved_by(size, folder / str(size))[0][0] for size in GRIDS}


class TestRoundTrips:
    @pytest.mark.parametrize("reading", GRIDS)
    @pytest.mark.parametrize("writing", GRIDS)
    def test_any_ranks_read_what_any_ranks_wrote(self, checkpoints, writing, reading):
        def run(group):
            state = as_had(WANTED, group.rank, reading, filled=False)
            loaded = load(checkpoints[writing], state, group)
            check_same(state, as_had(WANTED, group.rank, reading))
            assert loaded.bytes == sum(array_of(one).nbytes for one in state.values())
            return loaded

        for loaded in well(together(reading, run)):
            assert loaded.step == 7
            assert [one["rank"] for one in loaded.metadata] == list(range(writing))
            assert not loaded.missing and not loaded.unwanted

    @pytest.mark.parametrize("size", GRIDS)
    def test_ranks_read_what_they_wrote(self, checkpoints, size):
        def run(group):
            state = as_had(SAVED, group.rank, size, filled=False)
            load(checkpoints[size], state, group)
            check_same(state, as_had(SAVED, group.rank, size))

        well(together(size, run))

    def test_a_process_alone_reads_and_needs_no_group(self, checkpoints):
        state = {name: np.zeros_like(one) for name, one in WHOLE.items()}
        load(checkpoints[3], state)
        check_same(state, WHOLE)

    def test_the_library_reads_the_files(self, checkpoints):
        plain = {name: one for name, one in WHOLE.items() if name not in ("small", "nothing")}
        found = load_file(checkpoints[1] / files.file_of(0))
        check_same({name: found[name] for name in plain}, plain)
        manifest = json.loads((checkpoints[1] / "manifest.json").read_text())
        assert manifest["manifest"]["tensors"]["small"]["dtype"] == "float8_e4m3fn"


def test_replicas_are_written_once_by_all_ranks_alike(tmp_path):
    rng = np.random.default_rng(0)
    state = {f"layer {index}": rng.standard_normal((int(rng.integers(1, 600)), 300)).astype(np.float32)
             for index in range(20)}  # fmt: skip
    total = sum(one.nbytes for one in state.values())

    def run(group):
        handle = save(state, tmp_path, 1, group, wait=True)
        assert handle.staged == handle.bytes == handle.written
        return handle.bytes

    counts = well(together(4, run))
    assert sum(counts) == total
    assert max(counts) < 1.1 * total / 4


def test_paddle_tensors_are_saved_and_filled_in_place(tmp_path):
    model = paddle.nn.Linear(6, 3)
    model.to(dtype="bfloat16")  # bfloat16() does nothing on processors without AVX-512
    kept = {name: one.numpy().copy() for name, one in model.state_dict().items()}
    path = save(model.state_dict(), tmp_path, 1).wait()
    for one in model.parameters():
        one.set_value(paddle.zeros_like(one))
    load(path, model.state_dict())
    for name, one in model.state_dict().items():
        np.testing.assert_array_equal(one.numpy(), kept[name])
        assert one.dtype == paddle.bfloat16


def test_metadata_come_back_of_each_rank(tmp_path):
    state = np.random.default_rng(3).bit_generator.state
    more = {"generator": state, "learning rate": 1e-3, "position": (3, b"key"), 7: [None, True],
            "numpy": np.random.RandomState(0).get_state()[1]}  # fmt: skip
    path = saved_by(2, tmp_path, metadata=more)[0][0]
    for found in examine(path).metadata:
        assert found["more"].pop("numpy").dtype == np.uint32
        assert found["more"] == {name: one for name, one in more.items() if name != "numpy"}


def test_arrays_that_are_not_contiguous_are_saved_and_filled(tmp_path):
    base = values((8, 6), np.float32)
    path = save({"x": base.T[::2]}, tmp_path, 1).wait()
    target = np.zeros((6, 6), np.float32)
    load(path, {"x": Sharded(target[::2, ::3], (3, 8), (0, 4))})
    np.testing.assert_array_equal(target[::2, ::3], base.T[::2, 4:6])
    assert (target[1::2] == 0).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_plan_has_every_element_once(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=3)))
    size = data.draw(st.integers(1, 6))
    boxes = Box.whole(shape).cut(data.draw(st.integers(1, size)))
    told = []
    for rank in range(size):
        box = boxes[rank % len(boxes)]
        told.append({"x": ["float32", list(shape), list(box.offsets), list(box.shape)]})
    count = np.zeros(shape, int)
    for _, box in plan(told)["x"].pieces:
        box.view(count, Box.whole(shape))[...] += 1
    assert (count == 1).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=3), st.integers(1, 9))
def test_shares_are_even(shape, count):
    box = Box((3,) * len(shape), (*shape[:-1], shape[-1] * 65536))
    parts = [part.volume for _, part in shares("x", box, "float32", range(count))]
    assert sum(parts) == box.volume
    axis = shape[0] if shape[0] >= count and len(shape) > 1 else 65536
    assert max(parts) - min(parts) <= box.volume // axis


class TestRefusals:
    @pytest.mark.parametrize(
        "states, why",
        (
            ([{"x": np.zeros(3)}, {"x": np.zeros(4)}], r"tensor 'x' is float64 \(3,\) on rank 0, and float64 \(4,\) on rank 1"),
            ([{"x": np.zeros(3)}, {"x": np.zeros(3, np.int8)}], "and int8"),
            ([{"x": np.zeros(3)}, {}], r"ranks \[1\] have none or a slice: pass Sharded"),
            ([{"x": Sharded(np.zeros(3))}, {"x": Sharded(np.zeros(2), (3,), (1,))}], r"\[0:3\] of ranks \[0\] and \[1:3\]"),
            ([{"x": Sharded(np.zeros(2), (5,), (0,))}, {"x": Sharded(np.zeros(2), (5,), (3,))}], "4 of 5 elements"),
        ),
    )  # fmt: skip
    def test_what_ranks_have_must_make_a_whole(self, tmp_path, states, why):
        def run(group):
            with pytest.raises(Mismatch, match=why):
                save(states[group.rank], tmp_path, 1, group).wait()
            save({"x": np.zeros(3)}, tmp_path, 2, group).wait()  # the group is still of use

        well(together(2, run))
        assert sorted(os.listdir(tmp_path)) == ["step-000002"]

    @pytest.mark.parametrize(
        "state, metadata, why",
        (
            ({"x": Sharded(np.zeros(3), (4,), (2,))}, None, r"tensor 'x': a slice of shape \(3,\) at offsets \(2,\)"),
            ({"x": Sharded(np.zeros(3), (4, 4), (0, 0))}, None, "does not lie in"),
            ({"x": np.zeros(3, np.complex128)}, None, "tensor 'x' is complex128: what can be stored is bool, uint8"),
            ({"x": np.zeros(3, ">f4")}, None, "tensor 'x' is >f4"),
            ({"x": [1.0, 2.0]}, None, "tensor 'x' must be a NumPy array or a Paddle tensor, not list"),
            ({3: np.zeros(3)}, None, "3 cannot be the name"),
            ({"x": np.zeros(3)}, object(), "a object cannot be sent"),
        ),
    )  # fmt: skip
    def test_all_ranks_learn_of_a_bad_argument_of_one(self, tmp_path, state, metadata, why):
        def run(group):
            given_ = (state, metadata) if group.rank == 1 else ({"x": np.zeros(3)}, None)
            with pytest.raises(CheckpointError, match=f"^rank 1: .*{why}"):
                save(given_[0], tmp_path, 1, group, metadata=given_[1]).wait()

        well(together(3, run))
        assert os.listdir(tmp_path) == []

    def test_ranks_must_save_the_same_step(self, tmp_path):
        def run(group):
            with pytest.raises(Mismatch, match=r"different steps: \[4, 5\]"):
                save({"x": np.zeros(3)}, tmp_path, 4 + group.rank, group).wait()

        well(together(2, run))
        with pytest.raises(ValueError, match="step must be at least 0, not -1"):
            save({}, tmp_path, -1)

    @pytest.mark.parametrize(
        "wanted, why",
        (
            ({"x": np.zeros(4, np.float32)}, r"'x' is stored as float32 \(5,\), and wanted as float32 \(4,\)"),
            ({"x": np.zeros(5, np.float64)}, r"and wanted as float64 \(5,\)"),
            ({"x": Sharded(np.zeros(2, np.float32), (2, 2), (0, 0))}, "does not lie in"),
            ({"z": np.zeros(5)}, "tensor 'z' is not stored"),
            ({"x": np.zeros(5, np.float32)}, "tensors that no rank wants: y"),
            ({"x": np.broadcast_to(np.float32(0), (5,)), "y": np.zeros((2, 2))}, "not writeable"),
        ),
    )  # fmt: skip
    def test_what_is_wanted_must_be_stored(self, tmp_path, wanted, why):
        path = one_step(tmp_path, 1)
        with pytest.raises(ValueError, match=why):
            load(path, wanted)

        def run(group):
            with pytest.raises(Mismatch, match=why if "no rank" in why else f"^rank 1: .*{why}"):
                load(path, wanted if group.rank == 1 else {"x": np.zeros(5, np.float32)}, group)

        well(together(2, run))

    def test_names_may_differ_if_asked(self, tmp_path):
        path = one_step(tmp_path, 1)
        state = {"x": np.zeros(5, np.float32), "z": np.zeros(1)}
        loaded = load(path, state, strict=False)
        assert (loaded.missing, loaded.unwanted) == (("z",), ("y",))
        assert (state["x"] == 1).all()

    def test_ranks_may_want_different_names(self, tmp_path):
        path = one_step(tmp_path, 1)
        wanted = [{"x": np.zeros(5, np.float32)}, {"y": np.zeros((2, 2))}]
        well(together(2, lambda group: load(path, wanted[group.rank], group)))
        assert (wanted[0]["x"] == 1).all() and (wanted[1]["y"] == 1).all()

    def test_other_versions_are_refused(self, tmp_path):
        path = one_step(tmp_path, 1)
        manifest = path / "manifest.json"
        manifest.write_bytes(manifest.read_bytes().replace(b'"version":1', b'"version":12'))
        with pytest.raises(
            CheckpointError, match="format version 12: this program reads version 1"
        ):
            load(path, {})
