"""info(), forced code paths, and finding the library."""

import subprocess
import sys
import threading

import pytest

from oarlock import native
from oarlock.native import _abi, _library
from oarlock.native.paddle import cpu
from oarlock.native.threads import count, physical_cores


def test_info_tells_what_was_found_and_chosen():
    info = native.info()
    assert info.path == info.paths[-1] and not info.forced
    assert "portable" in info.paths
    assert info.threads == count(None)
    assert info.version == _abi.ABI_VERSION
    for part in (info.path, info.build, info.library, str(info.threads)):
        assert part in str(info)


def test_features_are_those_the_system_reports():
    found, reported = native.info().features, cpu.this_cpu()
    assert ("avx2+fma" in found) == reported.avx2
    assert ("avx512" in found) == reported.avx512
    assert ("avx512_bf16" in found) == reported.avx512_bf16


@pytest.mark.parametrize("path", native.info().paths)
def test_paths_can_be_forced_and_nested(path):
    best = native.info().path
    with native.forced_path("portable"):
        with native.forced_path(path):
            assert (native.info().path, native.info().forced) == (path, True)
        assert native.info().path == "portable"
    assert (native.info().path, native.info().forced) == (best, False)


def test_a_forced_path_ends_with_an_error_and_is_of_its_thread():
    seen = []
    with pytest.raises(KeyError), native.forced_path("portable"):
        thread = threading.Thread(target=lambda: seen.append(native.info().forced))
        thread.start()
        thread.join()
        raise KeyError
    assert seen == [False] and not native.info().forced


def test_paths_that_are_not_here_are_refused():
    with pytest.raises(ValueError, match="path must be one of portable, .*, not 'sse9'"):
        with native.forced_path("sse9"):
            pass
    for path in {"avx2", "avx512", "neon"} - set(native.info().paths):
        with pytest.raises(ValueError, match=f"path '{path}' (is not in|cannot run on)"):
            with native.forced_path(path):
                pass


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setattr(_library, "find", lambda name: None)
    with pytest.raises(native.LibraryUnavailable, match="missing: reinstall oarlock-native"):
        _library.load.__wrapped__()


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(_abi, "ABI_VERSION", 99)
    with pytest.raises(native.LibraryUnavailable, match="needs 99: reinstall"):
        _library.load.__wrapped__()


def test_import_loads_neither_paddle_nor_the_library():
    code = (
        "import sys, oarlock.native.optim as o, oarlock.native._library as l;"
        "print('paddle' in sys.modules, l.load.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0"]


def topology(folder, cores):
    for logical, core in cores.items():
        place = folder / f"cpu{logical}" / "topology"
        place.mkdir(parents=True)
        (place / "physical_package_id").write_text("0\n")
        (place / "core_id").write_text(f"{core}\n")


def test_hyper_threads_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 5})
    topology(tmp_path, {0: 0, 1: 1, 2: 0, 3: 1, 5: 2, 6: 3})
    assert physical_cores(tmp_path, tmp_path) == 3


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, 4),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_the_cgroup_limits_the_cores(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    topology(tmp_path, {i: i for i in range(4)})
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert physical_cores(tmp_path, tmp_path) == cores


def test_thread_counts():
    assert count(7) == 7
    for bad in (0, -1, 1025, 1.5, "2", True):
        with pytest.raises(ValueError, match="threads must be"):
            count(bad)


def test_the_default_is_paddles_number_of_threads_or_the_physical_cores():
    code = """
from oarlock.native.threads import count, physical_cores
print(count(None) == physical_cores())
import paddle
for threads in (1, 3):
    paddle.base.core.set_num_threads(threads)
    print(count(None))
"""
    path = "\n".join(f"sys.path.append({entry!r})" for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import sys\n{path}\n{code}"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "1", "3"], done.stderr
