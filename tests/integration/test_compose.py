"""docker-compose.yml, read by the real Compose, and every command and health check in it run by hand."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from calibrl.processes import children
from calibrl.stack.services import Valkey, free_port
from jobs.settings import Settings
from tests.support import documents
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECRETS = {"POSTGRES_PASSWORD": "p", "REDIS_PASSWORD": "r", "CALIBRL_API_KEY": "k" * 32}


def compose(home: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run Compose with nothing in its environment but `env`, and no `.env` file."""
    command = [str(BIN / "docker-compose"), "--project-directory", str(ROOT), "--env-file", os.devnull, *arguments]
    clean = {"PATH": os.defpath, "HOME": str(home)} | (SECRETS if env is None else env)
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=LIMIT_SECONDS)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The whole file, every profile's services too, as Compose understands it."""
    answer = compose(tmp_path_factory.mktemp("home"), "--profile", "gpu", "config", "--format", "json")
    assert answer.returncode == 0, answer.stderr
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def set_variables(service: dict[str, Any]) -> dict[str, str]:
    """The variables that a service gets: one without a value it does not get at all."""
    return {name: value for name, value in service.get("environment", {}).items() if value is not None}


@pytest.mark.parametrize("profile", [[], ["--profile", "gpu"]])
def test_compose_accepts_the_file(tmp_path: Path, profile: list[str]) -> None:
    answer = compose(tmp_path, *profile, "config", "-q")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_the_gpu_worker_is_in_its_profile(tmp_path: Path) -> None:
    plain = compose(tmp_path, "config", "--services").stdout.split()
    with_gpu = compose(tmp_path, "--profile", "gpu", "config", "--services").stdout.split()
    assert set(with_gpu) - set(plain) == {"worker-gpu"}
    assert set(plain) == {"postgres", "redis", "migrate", "api", "worker", "dashboard"}


@pytest.mark.parametrize("missing", SECRETS)
def test_every_secret_must_be_set(tmp_path: Path, missing: str) -> None:
    for value in ({}, {missing: ""}):
        others = {name: secret for name, secret in SECRETS.items() if name != missing}
        answer = compose(tmp_path, "config", "-q", env=others | value)
        assert answer.returncode != 0
        assert f"{missing} is missing a value: set it in .env" in answer.stderr


def test_the_example_file_names_every_variable(tmp_path: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    named = {line.partition("=")[0] for line in example.splitlines() if line and not line.startswith("#")}
    answer = compose(tmp_path, "--profile", "gpu", "config", "--variables", "--format", "json")
    assert set(json.loads(answer.stdout)) == named
    for secret in SECRETS:
        assert f"{secret}=\n" in example


def test_the_gpu_worker_is_the_worker_with_a_device(config: dict[str, Any]) -> None:
    worker, gpu = config["services"]["worker"], config["services"]["worker-gpu"]
    assert {key for key in gpu if gpu[key] != worker.get(key)} == {"environment", "hostname", "profiles", "deploy"}
    own = {"CALIBRL_WORKER_CPU_SLOTS": "0", "CALIBRL_WORKER_GPUS": "all"}
    assert gpu["environment"] == worker["environment"] | own
    assert worker["environment"]["CALIBRL_WORKER_GPUS"] == "none"


def test_queue_settings_in_the_env_file_reach_their_services(tmp_path: Path) -> None:
    """Values pass through Compose, which parses quotes and braces, and through the settings that read the variables."""
    chosen = {
        "CALIBRL_WORKER_CPU_SLOTS": "3",
        "CALIBRL_WORKER_GPUS": "0,2",
        "CALIBRL_WORKER_LABELS": '{"gpu": "h100"}',
        "CALIBRL_QUICK_STARTS": "false",
        "CALIBRL_PREEMPTION": "true",
    }
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in (SECRETS | chosen).items()))
    answer = compose(tmp_path, "--env-file", str(file), "--profile", "gpu", "config", "--format", "json", env={})
    assert answer.returncode == 0, answer.stderr
    services = json.loads(answer.stdout)["services"]
    for name, own in {
        "worker": {"CALIBRL_WORKER_GPUS": "none"},
        "worker-gpu": {"CALIBRL_WORKER_CPU_SLOTS": "0"},
    }.items():
        environment = set_variables(services[name])
        assert environment.items() >= (chosen | own).items()
        settings = _settings(environment)
        assert settings.worker_labels == {"gpu": "h100"}
        assert (settings.preemption, settings.quick_starts) == (True, False)
    assert services["api"]["environment"]["CALIBRL_PREEMPTION"] == "true"


def test_the_example_file_changes_nothing_of_the_queue(config: dict[str, Any], tmp_path: Path) -> None:
    """The values in the example file are the defaults."""
    example = ROOT / ".env.example"
    answer = compose(tmp_path, "--env-file", str(example), "--profile", "gpu", "config", "--format", "json")
    assert answer.returncode == 0, answer.stderr
    services = json.loads(answer.stdout)["services"]
    for name in ("api", "worker", "worker-gpu"):
        assert _settings(set_variables(services[name])) == _settings(set_variables(config["services"][name]))


def _settings(environment: dict[str, str]) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings.read()


# Fields of `Settings` that Compose sets in no container.
NOT_PASSED_ON = {
    *("profile", "config_home", "dashboard_token"),  # of clients
    *("data_dir", "trainer"),  # the image decides
    *("worker_name", "worker_address"),  # the name of the host
    *("heartbeat_seconds", "sweep_seconds"),  # no administrator changes them
}


def test_the_services_get_every_setting(config: dict[str, Any], tmp_path: Path) -> None:
    variable = documents.generator().variable
    names = {field: variable(field) for field in Settings.model_fields}
    chosen = dict.fromkeys(names.values(), "1") | SECRETS
    answer = compose(tmp_path, "--profile", "gpu", "config", "--format", "json", env=chosen)
    assert answer.returncode == 0, answer.stderr
    services = json.loads(answer.stdout)["services"].values()
    passed = {name for service in services for name in set_variables(service)}
    assert {field for field, name in names.items() if name not in passed} == NOT_PASSED_ON


def test_storage_keys_reach_only_the_services_that_read_files(config: dict[str, Any], tmp_path: Path) -> None:
    """A variable missing in the file is not passed as an empty one: AWS's library would use the empty value."""
    chosen = {"CALIBRL_STORAGE": "s3://bucket/x", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in (SECRETS | chosen).items()))
    answer = compose(tmp_path, "--env-file", str(file), "--profile", "gpu", "config", "--format", "json", env={})
    assert answer.returncode == 0, answer.stderr
    readers = {"api", "worker", "worker-gpu"}
    for name, service in json.loads(answer.stdout)["services"].items():
        environment = set_variables(service)
        aws = {variable for variable in environment if variable.startswith("AWS_")}
        assert aws == ({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} if name in readers else set())
        assert ("CALIBRL_STORAGE" in environment) == (name in readers)
        if name in readers:
            assert environment.items() >= chosen.items()
            assert _settings(environment).storage_url == "s3://bucket/x"
    for name in readers:
        assert not [each for each in set_variables(config["services"][name]) if each.startswith("AWS_")]
        assert _settings(set_variables(config["services"][name])).storage is None


def test_nothing_listens_beyond_this_machine_by_default(config: dict[str, Any]) -> None:
    published = {
        name: [port["host_ip"] for port in service.get("ports", [])] for name, service in config["services"].items()
    }
    assert {name: ips for name, ips in published.items() if ips} == {"api": ["127.0.0.1"], "dashboard": ["127.0.0.1"]}


def test_opening_the_api_does_not_open_the_dashboard(tmp_path: Path) -> None:
    """The dashboard itself has no sign-in."""
    answer = compose(tmp_path, "config", "--format", "json", env=SECRETS | {"BIND_ADDRESS": "0.0.0.0"})
    services = json.loads(answer.stdout)["services"]
    assert [services[name]["ports"][0]["host_ip"] for name in ("api", "dashboard")] == ["0.0.0.0", "127.0.0.1"]


def test_only_services_that_need_it_get_the_database_password(config: dict[str, Any]) -> None:
    assert set(config["services"]["dashboard"]["environment"]) == {"CALIBRL_API_URL"}


def test_the_admins_key_and_secrets_are_where_they_are_used(config: dict[str, Any]) -> None:
    services = config["services"]
    assert [name for name in services if "CALIBRL_API_KEY" in set_variables(services[name])] == ["api"]
    assert set(set_variables(services["migrate"])) == {"DATABASE_URL"}


def test_the_broker_gets_its_password_but_not_by_its_command_line(
    config: dict[str, Any], tmp_path: Path, valkey: Valkey
) -> None:
    service, port = config["services"]["redis"], free_port()
    assert valkey.process
    server = Path(f"/proc/{valkey.process.pid}/exe").readlink()
    (shell, option, script) = (part.replace("$$", "$") for part in service["command"])
    started = "exec docker-entrypoint.sh valkey-server -"  # the entry point drops root
    assert started in script
    script = script.replace(started.removeprefix("exec "), f"{server} - --bind 127.0.0.1 --port {port}")
    log = tmp_path / "log.txt"
    process = children.start([shell, option, script], log=log, env=set_variables(service), cwd=tmp_path)
    try:
        with redis.Redis(port=port, password=SECRETS["REDIS_PASSWORD"]) as client:
            assert eventually(lambda: _pings(client))
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert b"requirepass" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    finally:
        assert children.stop(process, LIMIT_SECONDS) == 0  # the server gets the signal itself


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_the_image_holds_every_package() -> None:
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert packages <= kept
    assert {"alembic.ini", "pyproject.toml", "constraints.txt"} <= kept
    assert all((ROOT / name).exists() for name in kept)


class ByHand:
    """A service of the file as this machine can start it: same command and variables, other addresses."""

    def __init__(self, config: dict[str, Any], name: str, addresses: dict[str, str]) -> None:
        service = config["services"][name]
        ports = {str(port["target"]): str(free_port()) for port in service.get("ports", [])}
        self._swaps = ports | {"0.0.0.0": "127.0.0.1"}
        self.command = [self._swaps.get(part, part) for part in service["command"]]
        self.health = service.get("healthcheck", {}).get("test", ["CMD-SHELL", "true"])
        assert self.health[0] == "CMD-SHELL"
        environment = set_variables(service)
        assert all(name in addresses or name.startswith("CALIBRL_") for name in environment)
        own = {"PATH": f"{BIN}:{os.defpath}", "HOSTNAME": socket.gethostname(), "CALIBRL_DATA_DIR": addresses["data"]}
        self.env = own | {name: addresses.get(name, value) for name, value in environment.items()}

    def healthy(self) -> bool:
        check = self.health[1].replace("$$", "$")
        for port, other in self._swaps.items():
            check = check.replace(f":{port}/", f":{other}/")
        return (
            subprocess.run(
                ["sh", "-c", check], cwd=ROOT, env=self.env, capture_output=True, timeout=LIMIT_SECONDS
            ).returncode
            == 0
        )


@pytest.fixture
def addresses(database: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {"DATABASE_URL": database.replace("+psycopg", ""), "REDIS_URL": redis_url, "data": str(tmp_path)}


def test_migrate_makes_the_tables(config: dict[str, Any], addresses: dict[str, str], tmp_path: Path) -> None:
    with psycopg.connect(addresses["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        service = ByHand(config, "migrate", addresses)
        run = subprocess.run(
            service.command, cwd=ROOT, env=service.env, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
        assert run.returncode == 0, run.stderr
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["api", "worker", "dashboard"])
def test_a_service_starts_by_hand_and_becomes_healthy(
    config: dict[str, Any], addresses: dict[str, str], tmp_path: Path, name: str
) -> None:
    service = ByHand(config, name, addresses)
    assert not service.healthy()
    log = tmp_path / "log.txt"
    process = children.start(service.command, log=log, env=service.env, cwd=ROOT)
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not service.healthy():
            assert not children.ended(process, 0.2), log.read_text()
            assert time.monotonic() < deadline, log.read_text()
    finally:
        children.stop(process, 15)
