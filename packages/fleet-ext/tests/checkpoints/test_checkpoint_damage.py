"""Checkpoints that are damaged, and saves that are killed."""

import logging
import multiprocessing
import os
import shutil

import pytest
from damages import DAMAGES, FILE, flip
from oarlock.fleet_ext.checkpoints import (
    CheckpointError,
    checking,
    examine,
    files,
    latest,
    load,
    saving,
)

# fmt: skip
from ranks import together, well
from states import WANTED, as_had, check_same, one_step, saved_by


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
