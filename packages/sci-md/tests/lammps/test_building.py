"""Compiling the pair style: once, for one LAMMPS, with clear words where it cannot be."""

import subprocess
from importlib import metadata

import pytest
from oarlock.sci_md import lammps
from oarlock.sci_md.lammps import building
from oarlock.sci_md.lammps.commands import app
from typer.testing import CliRunner


def test_a_second_build_compiles_nothing(plugin, monkeypatch):
    def compile_again(*arguments):
        raise AssertionError("compiled twice")

    monkeypatch.setattr(building, "_compile", compile_again)
    assert lammps.build(plugin.parents[1]) == plugin


def test_another_lammps_is_refused(monkeypatch, tmp_path):
    real = metadata.version
    monkeypatch.setattr(
        building.metadata, "version", lambda name: "2024.8.29" if name == "lammps" else real(name)
    )
    with pytest.raises(lammps.PluginUnavailable, match=r"for lammps==2025.* here is 2024\.8\.29"):
        lammps.build(tmp_path)


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(lammps.PluginUnavailable, match="no C\\+\\+ compiler 'no-such-compiler'"):
        lammps.build(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho unknown machine >&2\ntest "$1" = --version\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(lammps.PluginUnavailable, match="unknown machine"):
        lammps.build(tmp_path / "kept")
    assert not list(tmp_path.rglob(building.LIBRARY))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(lammps.PluginUnavailable, match="set XDG_CACHE_HOME"):
        lammps.build(tmp_path / "file" / "folder")


def test_the_folder_of_lammps_plugins(plugin, monkeypatch, capsys):
    monkeypatch.setattr(building, "build", lambda: plugin)
    assert building.plugin_folder() == str(plugin.parent)

    def fail():
        raise lammps.PluginUnavailable("no compiler")

    monkeypatch.setattr(building, "build", fail)
    assert building.plugin_folder() == ""
    assert "pair_style oarlock is not available: no compiler" in capsys.readouterr().err


def test_the_library_shows_only_its_entrance(plugin):
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(plugin)], capture_output=True, text=True, check=True
    ).stdout
    assert "T lammpsplugin_init" in symbols
    assert "oarlock" not in symbols.replace("oarlockplugin", "")


def test_commands(plugin, models, monkeypatch):
    monkeypatch.setattr("oarlock.sci_md.lammps.launch.plugin_path", lambda: plugin)
    shown = CliRunner().invoke(app, ["input", str(models["schnet"]), "O", "Cu", "NULL"])
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        f"plugin load {plugin}",
        f"pair_style oarlock {models['schnet']}",
        "pair_coeff * * O Cu NULL",
    ]
    assert CliRunner().invoke(app, ["input", "/models/absent", "O"]).exit_code == 2
    kept = str(plugin.parents[1])
    assert CliRunner().invoke(app, ["build", "--folder", kept]).stdout.strip() == str(plugin)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert CliRunner().invoke(app, ["build"]).exit_code == 1
