"""Programs that try to get out, run long, grow large, or cheat."""

import os
import socket
import time

import pytest

from oarlock.llm.eval import sandbox

LIMITS = sandbox.Limits(wall_s=4, cpu_s=1, memory_mb=256)
WEAK = sandbox.Isolation(namespaces=False, landlock=False)
MODES = [
    pytest.param(WEAK, id="limits and fence"),
    pytest.param(
        sandbox.Isolation(namespaces=True, landlock=True),
        id="kernel",
        marks=pytest.mark.skipif(
            not sandbox.isolation().strong, reason="this system has no namespaces or no Landlock"
        ),
    ),
]


@pytest.fixture(params=MODES)
def call(request):
    def run(code, entry=None, calls=(), limits=LIMITS):
        return sandbox.call(code, entry, calls, limits=limits, allow_weak=True, use=request.param)

    run.strong = request.param.strong
    return run


def test_a_function_is_called_and_its_results_come_back(call):
    found = call("def f(x, y=1):\n    return [x, y]", "f", [[1], ["a", None]])
    assert (found.status, found.values, found.errors) == ("ok", [[1, 1], ["a", None]], ["", ""])


def test_what_raises_is_told_call_by_call(call):
    found = call("def f(x):\n    return 1 / x", "f", [[1], [0]])
    assert found.values == [1, None] and "ZeroDivisionError" in found.errors[1]
    assert "serializable" in call("def f():\n    return {1, 2}", "f", [[]]).errors[0]
    assert "recursion" in call("def f(n):\n    return f(n + 1)", "f", [[0]]).errors[0]


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("f(", "error", "SyntaxError"),
        ("raise SystemExit(0)", "error", "SystemExit"),
        ("x = 1", "error", "no function"),
        ("f = 3", "error", "no function"),
        ("import os; os._exit(0)", "killed", "no answer"),
        ("while True: pass", "timeout", "processor time"),
        ("import time; time.sleep(60)", "timeout", "wall time"),
        ("x = bytearray(10**10)", "memory", "out of memory"),
        ("x = []\nwhile True: x.append(bytes(10**6))", "memory", "out of memory"),
        ("while True: print('x' * 1000)", "output", "1 MB"),
    ],
)
def test_programs_that_do_not_end_well(call, code, status, detail):
    limits = sandbox.Limits(wall_s=1 if "sleep" in code else 8, cpu_s=1, memory_mb=256)
    begin = time.monotonic()
    found = call(code, "f", [[]], limits)
    assert (found.status, found.values) == (status, [])
    assert detail in found.detail
    assert time.monotonic() - begin < 9


@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.kill(-1, 9)",
        "import ctypes; ctypes.CDLL(None).fork()",
        "import socket; socket.socket()",
        "import _socket; _socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1')",
    ],
)
def test_processes_and_sockets_are_refused(call, code):
    found = call(code)
    assert found.status == "error" and "not allowed" in found.detail


@pytest.mark.parametrize("how", ["open({!r}, 'w')", "__import__('_io').FileIO({!r}, 'w')"])
def test_nothing_is_written_outside(call, tmp_path, how):
    target = tmp_path / "escaped"
    assert call(how.format(str(target))).status == "error"
    link = f"import os; os.symlink({str(tmp_path)!r}, 'l'); open('l/escaped', 'w')"
    assert call(link).status == "error"
    assert not target.exists()
    victim = tmp_path / "victim"
    victim.write_text("here")
    for change in ("os.remove({0!r})", "os.rename({0!r}, 'x')", "os.truncate({0!r}, 0)"):
        assert call("import os; " + change.format(str(victim))).status == "error"
    assert victim.read_text() == "here"


def test_the_work_folder_may_be_written_and_is_gone_afterwards(call):
    found = call("import os\nopen('a', 'w').write('b')\nprint(os.getcwd(), open('a').read())")
    folder, content = found.printed.split()
    assert found.status == "ok" and content == "b" and not os.path.exists(folder)


def test_children_behind_the_fence_do_not_survive(call):
    # `_posixsubprocess` raises no audit event: what it starts must end with the program
    mark = f"oarlock-{time.time_ns()}"
    code = f"""
import os, _posixsubprocess
r, w = os.pipe()
name = {mark!r}.encode()
_posixsubprocess.fork_exec([b'sleep', b'60'], [b'/bin/sleep', b'/usr/bin/sleep'], True, (), None,
    [b'MARK=' + name], -1, -1, -1, -1, -1, -1, r, w, False, False, -1, None, None, None, -1, None, False)
"""
    call(code)
    time.sleep(0.2)
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/environ", "rb") as file:
                assert mark.encode() not in file.read()
        except OSError:
            pass


@pytest.mark.parametrize("mode", [m for m in MODES if m.id == "kernel"])
def test_the_kernel_holds_without_the_fence(mode, tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    source = sandbox.runner.CHILD.read_text()
    assert '    fence(order["work"])\n' in source
    child.write_text(source.replace('    fence(order["work"])\n', ""))
    monkeypatch.setattr(sandbox.runner, "CHILD", child)

    def refused(code):
        found = sandbox.call(code, None, limits=LIMITS, use=mode)
        assert found.status == "error", (code, found)
        return found.detail

    victim = tmp_path / "victim"
    assert "Permission" in refused(f"open({str(victim)!r}, 'w')")
    assert "Permission" in refused("open('/etc/passwd')")
    assert "Permission" in refused("import subprocess; subprocess.run(['/bin/true'])")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert "No space" in refused(
        "import itertools\nfor i in itertools.count(): open(f'f{i}', 'wb').write(bytes(10**6))"
    )
    # the namespace has no other process: nobody to kill
    found = sandbox.call(
        "import os\nprint([n for n in range(2, 5000) if _there(n)])".replace(
            "import os\n",
            "import os\ndef _there(n):\n  try: os.kill(n, 0); return True\n  except OSError: return False\n",
        ),
        None,
        limits=LIMITS,
        use=mode,
    )
    assert found.printed.strip() == "[]"


def test_a_bomb_behind_the_fence_is_over_with_the_program(tmp_path, monkeypatch):
    if not sandbox.isolation().strong:
        pytest.skip("this system has no namespaces or no Landlock")
    child = tmp_path / "child.py"
    source = sandbox.runner.CHILD.read_text().replace('    fence(order["work"])\n', "")
    child.write_text(source)
    monkeypatch.setattr(sandbox.runner, "CHILD", child)
    # children that wait: one that multiplied without bound would be a bomb for this machine too
    code = "import os, time\nfor _ in range(50):\n  if os.fork() == 0:\n    time.sleep(600)\n"
    before = len([n for n in os.listdir("/proc") if n.isdigit()])
    sandbox.call(code, None, limits=LIMITS)
    time.sleep(0.3)
    after = len([n for n in os.listdir("/proc") if n.isdigit()])
    assert after - before < 25


def test_weak_systems_are_refused_unless_allowed():
    with pytest.raises(sandbox.SandboxUnavailable, match="namespaces.*Landlock.*allow_weak"):
        sandbox.call("x = 1", None, use=WEAK)


def test_limits_must_be_numbers_above_0():
    with pytest.raises(ValueError, match="wall_s must be a number above 0, got 0"):
        sandbox.Limits(wall_s=0)
