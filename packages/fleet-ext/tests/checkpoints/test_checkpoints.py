"""Checkpoints: written by some ranks, read by others, and whatever may happen to them in between."""

import errno
import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.fleet_ext.checkpoints import (
    CheckpointError, Checkpoints, Mismatch, Sharded, checking, examine, files, latest, load, prune, save, saving,
)  # fmt: skip
from oarlock.fleet_ext.checkpoints.layout import Box, plan, shares
from oarlock.fleet_ext.transport import TransportError
from safetensors.numpy import load_file

from ranks import together, well

GRIDS = {1: (1, 1), 2: (1, 2), 3: (3, 1), 4: (2, 2)}


def values(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return np.asarray(rng.integers(0, 100, shape)).astype(dtype)


WHOLE = {
    "rows": values((10, 7), np.float32, 1),
    "columns": values((5, 9), ml_dtypes.bfloat16, 2),
    "blocks": values((6, 8, 2), np.float64, 3),
    "replica": values((300, 200), np.float32, 4),
    "wide": values((2, 40_000), ml_dtypes.bfloat16, 5),
    "pairs": values((200, 100), np.int64, 6),
    "last": values((3,), np.int32, 7),
    "few": values((2, 3), np.float16, 8),
    "scalar": values((), np.float32, 9),
    "half": values((), ml_dtypes.bfloat16, 10),
    "nothing": values((0, 3), np.float32, 11),
    "flags": values((5,), bool, 12),
    "complex": values((3, 2), np.complex64, 13),
    "small": values((4, 4), ml_dtypes.float8_e4m3fn, 14),
}  # fmt: skip
#: How ranks have them: when they are saved, and, in another way, when they are loaded.
SAVED = {"rows": "rows", "few": "rows", "columns": "columns", "blocks": "blocks", "pairs": "pairs", "last": "last",
         "nothing": "rows"}  # fmt: skip
WANTED = {"rows": "columns", "columns": "rows", "blocks": "rows", "replica": "blocks", "pairs": "columns",
          "wide": "columns", "small": "rows", "complex": "columns"}  # fmt: skip


def slices_of(shape, kind, rank, size):
    """A rank's slice."""
    down, across = {"rows": (size, 1), "columns": (1, size), "blocks": GRIDS[size],
                    "pairs": ((size + 1) // 2, 1)}[kind]  # fmt: skip
    place = rank // 2 if kind == "pairs" else rank
    row, column = divmod(place, across)
    return tuple(
        slice(length * index // count, length * (index + 1) // count)
        for length, index, count in zip(shape, (row, column), (down, across))
    )


def as_had(kinds, rank, size, whole=WHOLE, filled=True):
    """What a rank has of everything."""
    found = {}
    for name, one in whole.items():
        kind = kinds.get(name)
        if kind is None:
            local = one.copy()
        elif kind == "last":
            local = one.copy()
        else:
            part = slices_of(one.shape, kind, rank, size)
            local = one[part].copy()
        if not filled:
            local = np.zeros_like(local)
        if kind is None:
            found[name] = local
        elif kind != "last":
            offsets = [one.start for one in part] + [0] * (one.ndim - len(part))
            found[name] = Sharded(local, one.shape, offsets)
        elif rank == size - 1:
            found[name] = Sharded(local)
    return found


def array_of(one):
    return one.local if isinstance(one, Sharded) else one


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        ours, theirs = array_of(found[name]), array_of(expected[name])
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes(), name


def saved_by(size, folder, step=7, kinds=SAVED, metadata=None):
    def run(group):
        state = as_had(kinds, group.rank, size)
        handle = save(state, folder, step, group, metadata={"rank": group.rank, "more": metadata})
        return handle.wait(), handle.bytes, handle.written

    return well(together(size, run))


def one_step(folder, step, value=None):
    """A small checkpoint of one process."""
    state = {"x": np.full(5, step if value is None else value, np.float32), "y": np.ones((2, 2))}
    return save(state, folder, step, metadata={"step": step}).wait()


def x_of(checkpoint):
    state = {"x": np.zeros(5, np.float32), "y": np.zeros((2, 2))}
    load(checkpoint, state)
    return state["x"][0]


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
    model.bfloat16()
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


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)


FILE = files.file_of(1)
DAMAGES = {
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "has no manifest.json"),
    "empty manifest": (lambda path: os.truncate(path / "manifest.json", 0), "manifest.json is torn"),
    "half a manifest": (lambda path: os.truncate(path / "manifest.json", 700), "manifest.json is torn"),
    "no last byte": (
        lambda path: os.truncate(path / "manifest.json", (path / "manifest.json").stat().st_size - 1),
        "manifest.json is torn",
    ),
    "bit of the manifest": (lambda path: flip(path / "manifest.json", 500), "manifest.json is torn"),
    "no file": (lambda path: (path / FILE).unlink(), f"{FILE} is missing"),
    "empty file": (lambda path: os.truncate(path / FILE, 0), f"{FILE} has 0 bytes"),
    "half a file": (lambda path: os.truncate(path / FILE, 100_000), f"{FILE} has 100000 bytes"),
    "bit of a header": (lambda path: flip(path / FILE, 20), f"{FILE} is damaged"),
    "bit of a tensor": (lambda path: flip(path / FILE, 100_000), f"{FILE} is damaged"),
    "last bit": (lambda path: flip(path / FILE, -1), f"{FILE} is damaged"),
    "only a folder": (lambda path: [one.unlink() for one in path.iterdir()], "has no manifest.json"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    saved_by(2, folder, 1)
    saved_by(2, folder, 2)
    return folder


class TestDamage:
    @pytest.fixture
    def folder(self, good, tmp_path):
        return shutil.copytree(good, tmp_path / "copy")

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_the_one_before_is_used(self, folder, damage, caplog):
        harm, why = DAMAGES[damage]
        harm(folder / "step-000002")

        def run(group):
            with pytest.raises(CheckpointError, match=why):
                load(folder / "step-000002", as_had({}, 0, 1), group)
            found = latest(folder, group)
            state = as_had(WANTED, group.rank, 3, filled=False)
            load(found.path, state, group, verify=False)
            check_same(state, as_had(WANTED, group.rank, 3))
            return found

        for found in well(together(3, run)):
            assert found.path == folder / "step-000001" and found.step == 1
            ((path, reason),) = found.skipped
            assert path == folder / "step-000002" and why in reason
        (warning,) = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert "step-000002 is skipped" in warning.message and why in warning.message
        assert latest(folder).path == found.path

    def test_flipped_bits_are_found(self, tmp_path):
        path = one_step(tmp_path, 1)
        for file in (path / "manifest.json", path / files.file_of(0)):
            good = file.read_bytes()
            for at in range(0, len(good), 3):
                flip(file, at)
                with pytest.raises(CheckpointError):
                    examine(path)
                file.write_bytes(good)
        examine(path)

    def test_without_checksums_sizes_are_still_compared(self, folder):
        os.truncate(folder / "step-000002" / FILE, 100)
        assert latest(folder, verify=False).step == 1

    def test_a_broken_header_fails_on_all_ranks_without_checksums(self, folder):
        flip(folder / "step-000002" / FILE, 8)

        def run(group):
            state = as_had(WANTED, group.rank, 3, filled=False)
            with pytest.raises(CheckpointError, match="SafetensorError"):
                load(folder / "step-000002", state, group, verify=False)

        well(together(3, run))

    def test_files_are_verified_by_one_rank_each(self, folder, monkeypatch):
        summed = []
        monkeypatch.setattr(
            checking, "sum_of", lambda path: [summed.append(path.name), files.sum_of(path)][1]
        )
        well(together(3, lambda group: examine(folder / "step-000002", group)))
        assert sorted(summed) == [files.file_of(0), files.file_of(1)]

    def test_where_all_are_damaged_that_is_an_error(self, folder):
        for name in ("step-000001", "step-000002"):
            flip(folder / name / FILE, 50)
        with pytest.raises(
            CheckpointError, match="no good checkpoint: step-000002: .*; step-000001"
        ):
            latest(folder)

    def test_where_there_are_none_there_is_none(self, tmp_path):
        assert latest(tmp_path) is None and latest(tmp_path / "missing") is None


STAGES = {
    "folder made": (saving, "write_tensors", 0),
    "within a file": (files, "_settle", 0),
    "files written": (saving, "write_bytes", 0),
    "within the manifest": (files, "_settle", 1),
    "manifest written": (saving, "sync_folder", 0),
    "before it gets its name": (saving, "free_name", 0),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_save_that_is_killed_leaves_the_one_before(tmp_path, stage):
    one_step(tmp_path, 1)
    module, name, calls = STAGES[stage]

    def killed():
        left, function = [calls], getattr(module, name)

        def patched(*arguments):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return function(*arguments)

        setattr(module, name, patched)
        one_step(tmp_path, 2)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(20)
    assert process.exitcode == 9
    assert len(os.listdir(tmp_path)) == 2
    assert latest(tmp_path).step == 1 and not latest(tmp_path).skipped
    one_step(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ["step-000001", "step-000002"]
    assert latest(tmp_path).step == 2


class TestDisks:
    @pytest.fixture
    def small(self, tmp_path):
        folder = tmp_path / "small"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("a small disk cannot be made here: that needs root, and leave to mount")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_a_full_disk_is_told_to_all_ranks_and_nothing_is_left(self, small):
        state = {"x": np.ones((1000, 100), np.float32)}
        too_large = {"x": np.ones((5000, 100), np.float32)}

        def run(group):
            save(state, small, 1, group).wait()
            for _ in range(2):
                with pytest.raises(CheckpointError, match=os.strerror(errno.ENOSPC)):
                    save(too_large, small, 2, group).wait()
                group.barrier().wait()
                assert os.listdir(small) == ["step-000001"]
                group.barrier().wait()
            return load(latest(small, group).path, {"x": np.zeros((1000, 100), np.float32)}, group)

        assert well(together(2, run))[0].step == 1

    def test_one_rank_that_cannot_write_fails_all(self, tmp_path):
        code = f"""
import resource, sys
import numpy as np
from oarlock.fleet_ext.checkpoints import CheckpointError, Sharded, save
from ranks import together

def run(group):
    # Only now: ranks have files for what they say to each other, too.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    save({{"x": np.ones(10)}}, sys.argv[1], 1, group).wait()
    count = 200_000 if group.rank == 1 else 10
    try:
        save({{f"{{group.rank}}": Sharded(np.ones(count))}}, sys.argv[1], 2, group).wait()
    except CheckpointError as error:
        return str(error), type(error.__cause__)

for rank, (text, cause) in enumerate(together(3, run)):
    assert text.startswith("rank 1: ") and "{os.strerror(errno.EFBIG)}" in text, text
    assert cause is (OSError if rank == 1 else type(None)), cause
"""
        path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, tmp_path], env=path, check=True, timeout=100)
        assert os.listdir(tmp_path) == ["step-000001"]

    @pytest.mark.parametrize("stage", ("write_tensors", "write_bytes", "sync_folder", "free_name"))
    def test_an_error_at_any_stage_is_told_to_all_ranks_and_nothing_is_left(
        self, tmp_path, monkeypatch, stage
    ):
        function = getattr(saving, stage)

        def failing(path, *more):
            if stage == "write_tensors" and path.name != files.file_of(1):
                return function(path, *more)
            raise OSError(errno.EIO, "the disk is on fire")

        def run(group):
            group.barrier().wait()
            with pytest.raises(CheckpointError, match="^rank [01]: .*the disk is on fire"):
                save({"x": np.ones(30_000)}, tmp_path, 2, group).wait()

        monkeypatch.setattr(saving, stage, failing)
        well(together(3, run))
        assert os.listdir(tmp_path) == []
        monkeypatch.setattr(saving, stage, function)
        assert latest(saved_by(3, tmp_path)[0][0].parent).step == 7

    def test_ranks_must_share_the_folder(self, tmp_path):
        def run(group):
            with pytest.raises(CheckpointError, match="^rank 1: .*No such file"):
                save({"x": np.ones(3)}, tmp_path / str(group.rank), 2, group).wait()

        (tmp_path / "1").mkdir()
        well(together(2, run))

    def test_a_program_that_ends_waits_for_its_checkpoint(self, tmp_path):
        code = """
import sys, time
import numpy as np
from oarlock.fleet_ext.checkpoints import save, saving
write = saving.write_tensors
saving.write_tensors = lambda *arguments: [time.sleep(0.3), write(*arguments)][1]
save({"x": np.ones(3)}, sys.argv[1], 5)
"""
        path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, tmp_path], env=path, check=True, timeout=60)
        assert latest(tmp_path).step == 5


def test_a_rank_that_is_lost_is_an_error_and_nothing_is_visible(tmp_path):
    def run(group):
        if group.rank == 2:
            group.barrier().wait()
            return
        handle = save({"x": np.ones(3)}, tmp_path, 1, group.subgroup(range(3), "checkpoints"))
        group.barrier().wait()
        with pytest.raises(TransportError):
            handle.wait(20)

    well(together(3, run))
    assert latest(tmp_path) is None
    one_step(tmp_path, 2)
    assert os.listdir(tmp_path) == ["step-000002"]


class Gate:
    """Holds up the writing of files."""

    def __init__(self, monkeypatch):
        self.open, self.reached = threading.Event(), threading.Event()

        def gated(*arguments):
            self.reached.set()
            assert self.open.wait(20)
            return files.write_tensors(*arguments)

        monkeypatch.setattr(saving, "write_tensors", gated)


class TestBackground:
    @pytest.fixture
    def gate(self, monkeypatch):
        return Gate(monkeypatch)

    def test_training_goes_on_with_the_tensors(self, tmp_path, gate):
        def run(group):
            state = as_had(SAVED, group.rank, 2)
            own = group.subgroup(range(2), "checkpoints")
            handle = save(state, tmp_path, 1, own, metadata=(numbers := [1, 2]))
            assert not handle.done() and handle.staging_s > 0
            for one in state.values():
                array_of(one)[...] = 0
            numbers.append(3)
            total = group.all_reduce(np.ones(4)).wait()  # the training's messages are not disturbed
            assert (total == 2).all()
            assert gate.reached.wait(20)
            with pytest.raises(TimeoutError):
                handle.wait(0.01)
            assert handle.written == 0 < handle.bytes and latest(tmp_path) is None
            group.barrier().wait()
            gate.open.set()
            path = handle.wait()
            assert handle.written == handle.bytes
            wanted = as_had(WANTED, group.rank, 2, filled=False)
            assert load(path, wanted, own).metadata == ([1, 2], [1, 2])
            check_same(wanted, as_had(WANTED, group.rank, 2))
            own.close()

        well(together(2, run))

    def test_a_group_saves_one_at_a_time(self, tmp_path, gate):
        def run(group):
            first = save({"x": np.ones(3)}, tmp_path, 1, group)
            with pytest.raises(ValueError, match="group 'all' still saves a checkpoint"):
                save({"x": np.ones(3)}, tmp_path, 2, group)
            gate.open.set()
            first.wait()
            return save({"x": np.ones(3)}, tmp_path, 2, group).wait()

        assert well(together(2, run)) == [tmp_path / "step-000002"] * 2

    def test_checkpoints_wait_for_the_one_before(self, tmp_path, gate):
        def run(group):
            x = np.ones(50_000)
            with Checkpoints(tmp_path, group) as checkpoints:
                first = checkpoints.save({"x": x}, 1)
                threading.Timer(0.2, gate.open.set).start()
                x += 1
                second = checkpoints.save({"x": x}, 2)
                assert first.done()
            assert second.done()
            for step, handle in ((1, first), (2, second)):
                found = np.zeros(50_000)
                load(handle.wait(), {"x": found}, group)
                assert (found == step).all()

        well(together(2, run))

    def test_wait_waits(self, tmp_path, gate):
        gate.open.set()
        assert save({"x": np.ones(3)}, tmp_path, 1, wait=True).done()
        assert latest(tmp_path).step == 1


class TestKeeping:
    def test_so_many_stay(self, tmp_path):
        def run(group):
            with Checkpoints(tmp_path, group, keep=2) as checkpoints:
                for step in range(5):
                    checkpoints.save(
                        {"x": np.full(5, step, np.float32), "y": np.ones((2, 2))}, step
                    )

        well(together(2, run))
        assert sorted(os.listdir(tmp_path)) == ["step-000003", "step-000004"]

    @pytest.mark.parametrize("damage", ("no manifest", "empty file"))
    def test_those_that_are_not_good_do_not_count(self, tmp_path, damage):
        for step in range(4):
            saved_by(2, tmp_path, step)
        for step in (2, 3):
            DAMAGES[damage][0](tmp_path / f"step-{step:06d}")
        assert prune(tmp_path, 1) == [tmp_path / "step-000000"]
        assert prune(tmp_path, 2) == []
        assert latest(tmp_path).step == 1

    def test_nothing_goes_where_the_new_one_does_not_read_back(self, tmp_path, monkeypatch):
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save({"x": np.full(5, 1, np.float32), "y": np.ones((2, 2))}, 1)
        rename = Path.rename

        def harmful(path, target):
            flip(path / files.file_of(0), -1)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", harmful)
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            handle = checkpoints.save({"x": np.full(5, 2, np.float32), "y": np.ones((2, 2))}, 2)
            with pytest.raises(CheckpointError, match="is damaged"):
                handle.wait()
        assert x_of(latest(tmp_path).path) == 1

    def test_a_step_that_is_saved_again_is_newer(self, tmp_path):
        first, second, third = (one_step(tmp_path, 3, value) for value in (10, 11, 12))
        assert [one.name for one in (first, second, third)] == ["step-000003", "step-000003.1", "step-000003.2"]  # fmt: skip
        assert latest(tmp_path).path == third and x_of(third) == 12
        flip(third / files.file_of(0), -1)
        assert x_of(latest(tmp_path).path) == 11
        assert prune(tmp_path, 2) == [first]

    def test_other_folders_are_left_alone(self, tmp_path):
        for name in ("step-12", "step-000001.part", "runs", ".step-000001.part"):
            (tmp_path / name).mkdir()
        one_step(tmp_path, 1)
        one_step(tmp_path, 1_234_567)
        assert prune(tmp_path, 1) == [tmp_path / "step-000001"]
        assert latest(tmp_path).path.name == "step-1234567"
        assert len(os.listdir(tmp_path)) == 5

    @pytest.mark.parametrize("size", (1, 3))
    def test_a_job_goes_on_where_it_was(self, tmp_path, size):
        def train(steps, group):
            state = {"x": np.zeros(4), "m": Sharded(np.zeros(1), (size,), (group.rank,))}
            with Checkpoints(tmp_path, group, keep=2) as checkpoints:
                loaded = checkpoints.restore(state)
                first = 0 if loaded is None else loaded.step
                for step in range(first, steps):
                    state["m"].local[:] += step
                    state["x"] += group.all_reduce(state["m"].local.copy()).wait()
                    checkpoints.save(state, step + 1)
            return first, state["x"].tolist(), state["m"].local.tolist()

        well(together(size, lambda group: train(3, group)))
        found = well(together(size, lambda group: train(6, group)))
        shutil.rmtree(tmp_path)
        plain = well(together(size, lambda group: train(6, group)))
        assert [one[0] for one in found] == [3] * size
        assert [one[1:] for one in found] == [one[1:] for one in plain]

    def test_keep_is_at_least_one(self, tmp_path):
        for function in (prune, lambda folder, keep: Checkpoints(folder, keep=keep)):
            with pytest.raises(ValueError, match="keep must be at least 1, not 0"):
                function(tmp_path, 0)


def test_memory_of_copies_is_used_again(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        x = np.ones(100_000)
        checkpoints.save({"x": x}, 1)
        before = checkpoints._staging._parts["x"][0].ctypes.data
        checkpoints.save({"x": x}, 2)
        assert checkpoints._staging._parts["x"][0].ctypes.data == before
