"""What ``deploy/`` names exists: commands, roles, options, settings, files. Nothing there is started here."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from config.load import load
from config.settings import NodeSettings
from scp_node.cli.main import build_parser
from scp_node.jobs.roles import Role

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "scp-node"}
UNIT = (DEPLOY / "systemd" / "scp-node@.service").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def parsed(arguments):
    """The arguments as the program understands them; it exits on what it does not."""
    parser, module = build_parser(arguments[0])
    assert module is not None
    return parser.parse_args(arguments)


def settings_of(service) -> NodeSettings:
    environ = {
        name: str(value).replace("${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}", "secret")
        for name, value in service["environment"].items()
    }
    return load(DEPLOY / "node.toml", environ)


def unit_values(key):
    return [line.partition("=")[2] for line in UNIT.splitlines() if line.startswith(f"{key}=")]


def test_services_run_roles_that_exist_with_settings_that_load():
    roles = [role for service in SERVICES.values() for role in parsed(service["command"]).role]
    assert sorted(roles) == ["receiver", "receiver", "worker", "worker"]
    for service in SERVICES.values():
        settings = settings_of(service)
        assert settings.database.url.startswith("postgresql://scp_node:secret@postgres/")
        (config,) = (v.split(":") for v in service["volumes"] if v.startswith("./node.toml"))
        assert config[1] == str(parsed(service["command"]).config)


def test_a_wrong_role_would_be_seen():
    with pytest.raises(SystemExit):
        parsed(["serve", "--role", "recevier"])


def test_processes_find_each_other():
    settings = settings_of(SERVICES["worker1"])
    addresses = COMPOSE["services"]["balancer"]["environment"]
    for number in (1, 2):
        host, _, port = addresses[f"SCP_NODE_RECEIVER_{number}"].partition(":")
        assert host in SERVICES
        assert int(port) == settings.receiver.port
    (destination,) = settings.destinations
    orthanc = json.loads((DEPLOY / "orthanc.json").read_text(encoding="utf-8"))
    assert destination.host in COMPOSE["services"]
    assert (destination.ae_title, destination.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    title, host, _ = orthanc["DicomModalities"]["node"]
    assert title == settings.receiver.ae_title
    assert host in COMPOSE["services"]
    assert orthanc["DicomAet"] in {caller.ae_title for caller in settings.receiver.callers}


def test_all_processes_share_one_spool_and_stop_in_time():
    for service in SERVICES.values():
        mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
        settings = settings_of(service)
        assert settings.spool.folder.is_relative_to(mounts["spool"])
        assert service["read_only"] is True
        assert int(service["stop_grace_period"].removesuffix("s")) > 2 * settings.service.stop_timeout_s
    assert int(unit_values("TimeoutStopSec")[0]) > 2 * NodeSettings().service.stop_timeout_s


def test_what_is_mounted_exists():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file()
            else:
                assert source in COMPOSE["volumes"]
    assert (DEPLOY / COMPOSE["services"]["receiver1"]["build"]["dockerfile"].removeprefix("deploy/")).is_file()


def test_the_unit_runs_every_role():
    (command,) = unit_values("ExecStart")
    for role in (*(role.value for role in Role), "all"):
        program, *arguments = shlex.split(command.replace("%i", role))
        assert program == "/opt/scp-node/bin/scp-node"
        assert parsed(arguments).role == [role]


def test_the_image_starts_the_node_and_never_as_root():
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    final = stages[-1]
    assert not re.search(r"build-essential|gcc|apt-get", final)
    assert re.search(r"^USER scp-node$", final, flags=re.MULTILINE)
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", final, flags=re.MULTILINE)
    (command,) = re.findall(r"^CMD (.*)$", final, flags=re.MULTILINE)
    assert json.loads(entry) == ["scp-node"]
    assert str(parsed(json.loads(command)).config) == "/etc/scp-node/node.toml"


def test_the_image_is_built_from_what_there_is():
    (installed,) = re.findall(r"pip install --require-hashes .* -r \"/(locks)/\$\{LOCK\}\.txt\"", DOCKERFILE)
    (default,) = re.findall(r"^ARG LOCK=([a-z]+)$", DOCKERFILE, flags=re.MULTILINE)
    assert {path.stem for path in (DEPLOY / installed).glob("*.txt")} >= {default, "cpu"}
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    assert all((ROOT / name).exists() for name in kept)
    packages = {pattern.removesuffix("*") for pattern in _packages()}
    assert packages | {"LICENSE", "README.md", "pyproject.toml", "deploy/locks"} == set(kept)


def _packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["setuptools"]["packages"]["find"]["include"]


def test_every_variable_that_is_named_is_a_setting():
    texts = [file.read_text(encoding="utf-8") for file in DEPLOY.rglob("*") if file.is_file()]
    names = {name for text in texts for name in re.findall(r"SCP_NODE__[A-Z0-9_]+", text)}
    assert names
    for name in names:
        section, key = name.removeprefix("SCP_NODE__").lower().split("__")
        assert key in NodeSettings.model_fields[section].annotation.model_fields, name


def test_the_unit_is_one_that_systemd_knows(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for role in ("all", "receiver", "worker"):
        # The program lies elsewhere on this machine; everything else is judged as it stands.
        file = tmp_path / f"scp-node@{role}.service"
        file.write_text(UNIT.replace("/opt/scp-node/bin/scp-node", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
        complaints = [line for line in done.stderr.splitlines() if "scp-node" in line]
        assert complaints == []


def test_the_balancer_accepts_its_configuration():
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if haproxy is None:
        pytest.skip("HAProxy is not installed (apt-get install haproxy)")
    variables = dict.fromkeys(COMPOSE["services"]["balancer"]["environment"], "127.0.0.1:1104")
    done = subprocess.run(
        [haproxy, "-c", "-f", str(DEPLOY / "haproxy.cfg")], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
