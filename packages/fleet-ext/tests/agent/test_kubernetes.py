"""Manifests fit the schemas of Kubernetes, the options of our commands, and each other."""

from pathlib import Path

import pytest
import typer
import yaml

from oarlock.fleet_ext.cli.agent import agent
from oarlock.fleet_ext.cli.serve import serve
from oarlock.fleet_ext.rendezvous.__main__ import main as store

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OBJECTS = [
    one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())
]
COMMANDS = {"agent": agent, "serve": serve, "store": store}


def named(kind):
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


def pods():
    return [one["spec"]["template"] for one in OBJECTS if "template" in one["spec"]]


@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_an_object_fits_its_schema(one):
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate has the schemas"
    )
    schemas.validate(one, "1.30", strict=True)


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod["metadata"]["labels"]["app"])
def test_a_command_takes_its_options(pod, tmp_path):
    (tmp_path / "token").write_text("token")
    program, *args = pod["spec"]["containers"][0]["args"]
    command = "store" if program == "python" else args[0]
    args = args[2:] if program == "python" else args[1:]
    args = [one.replace("/etc/oarlock", str(tmp_path)) for one in args]
    app = typer.Typer()
    settings = {"allow_extra_args": True, "allow_interspersed_args": False}
    app.command(command, context_settings=settings)(COMMANDS[command])
    context = typer.main.get_command(app).make_context(command, args)
    assert not any(
        one.startswith("-") for one in context.args[:1]
    )  # the rest is the command behind --


def test_what_is_named_is_there():
    services = named("Service")
    labels = [pod["metadata"]["labels"] for pod in pods()]
    for one in services.values():
        assert one["spec"]["selector"] in labels
    for pod in pods():
        container = pod["spec"]["containers"][0]
        args = container["args"]
        mounted = {one["name"]: one["mountPath"] for one in container.get("volumeMounts", ())}
        volumes = [one["name"] for one in pod["spec"].get("volumes", ())] + ["journal"]
        assert set(mounted) <= set(volumes)
        if "--token-file" in args:
            assert args[args.index("--token-file") + 1] == f"{mounted['token']}/token"
        if "--store" in args:
            host, port = args[args.index("--store") + 1].split(":")
            assert services[host]["spec"]["ports"][0]["port"] == int(port)
        if "--drain" in args:
            drain = float(args[args.index("--drain") + 1])
            assert pod["spec"]["terminationGracePeriodSeconds"] > drain
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                (check,) = [one for one in container[probe].values() if isinstance(one, dict)]
                assert check["port"] in [one["name"] for one in container["ports"]]
    jobs = [pod["spec"]["containers"][0]["args"] for pod in pods()]
    names = {args[args.index("--job") + 1] for args in jobs if "--job" in args}
    assert names == {"train"}  # of the store and of the agents
