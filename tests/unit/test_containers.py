"""The container files, as far as they can be held to their word without a container engine.

Their commands and health checks run here as they stand, with the environment that they would have there:
as processes of this machine, against a real Postgres and a real Redis-protocol server.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded.server_binary import redis_server_binary
from app.settings import Settings
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SECRETS = {"MUKA_API_KEY": "key", "POSTGRES_PASSWORD": "p0stgres", "REDIS_PASSWORD": "r3dis"}

Instructions = list[tuple[str, str]]
Service = dict[str, Any]


def compose(variables: dict[str, str]) -> dict[str, Service]:
    """The services, with `${…}` put in as `docker compose` does it."""

    def value(found: re.Match[str]) -> str:
        name, operator, word = found.groups()
        if variables.get(name):
            return variables[name]
        if operator == ":-":
            return str(word)
        raise KeyError(f"{name}: {word}")

    text = re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, (ROOT / "docker-compose.yml").read_text())
    services: dict[str, Service] = yaml.safe_load(text)["services"]
    return services


SERVICES = compose(SECRETS)
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def instructions(dockerfile: Path) -> Instructions:
    """Keyword and arguments, line by line."""
    text = dockerfile.read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def final_stage(dockerfile: Path) -> dict[str, str]:
    """What the image is made of; of a repeated keyword the last."""
    every = instructions(dockerfile)
    last = max(i for i, (keyword, _) in enumerate(every) if keyword == "FROM")
    return dict(every[last:])


def image(service: Service) -> dict[str, str]:
    """The final stage of the image that the service runs."""
    return final_stage(ROOT / service["build"]["dockerfile"])


def command(service: Service) -> list[str]:
    """What the container runs."""
    words: list[str] = service.get("command") or json.loads(image(service)["CMD"])
    return words


def health_check(service: Service) -> list[str]:
    """What the engine asks the container."""
    words: list[str] = json.loads(image(service)["HEALTHCHECK"].partition("CMD ")[2])
    return words


def environment(service: Service) -> dict[str, str]:
    """The environment of the container."""
    baked = dict(pair.split("=", 1) for pair in shlex.split(image(service)["ENV"]))
    given = {name: value for name, value in service["environment"].items() if value is not None}
    return baked | given


def passed_on() -> set[str]:
    """Variables that containers have when `.env` has them."""
    return {name for each in OURS.values() for name, value in each["environment"].items() if value is None}


def seconds(duration: str) -> float:
    """Of `30s` or `1m`."""
    return float(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


class TestFiles:
    @pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
    def test_linter_finds_nothing(self, dockerfile: Path) -> None:
        subprocess.run([BIN / "hadolint", "--failure-threshold", "info", dockerfile], check=True)

    def test_compose_file_fits_its_schema(self) -> None:
        arguments = ("--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml")
        subprocess.run([BIN / "check-jsonschema", *arguments], check=True)

    @pytest.mark.parametrize("secret", SECRETS)
    def test_every_secret_is_required(self, secret: str) -> None:
        with pytest.raises(KeyError, match=secret):
            compose(SECRETS | {secret: ""})

    def test_example_names_every_variable_and_fills_in_no_secret(self) -> None:
        example = (ROOT / ".env.example").read_text()
        named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) - {"COMPOSE_PROFILES"}
        wanted = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
        assert named == wanted | passed_on()
        assert set(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == set(SECRETS)

    def test_every_setting_exists(self) -> None:
        known = {f"MUKA_{name.upper()}" for name in Settings.model_fields}
        used = {
            name for service in OURS.values() for name in environment(service) if name.startswith("MUKA_")
        }
        assert used | {name for name in passed_on() if name.startswith("MUKA_")} <= known

    def test_images_have_exact_tags(self) -> None:
        bases = [
            args.split()[0]
            for path in DOCKERFILES
            for keyword, args in instructions(path)
            if keyword == "FROM"
        ]
        for name in bases + [service["image"] for service in SERVICES.values()]:
            assert re.search(r":\d+\.\d+(\.\d+)?(-[a-z-]+)?$", name), name

    @pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
    def test_image_is_built_from_what_the_build_context_holds(self, dockerfile: Path) -> None:
        admitted = {
            line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
        }
        copies = [args.split() for keyword, args in instructions(dockerfile) if keyword == "COPY"]
        sources = {source for copy in copies if not copy[0].startswith("--from") for source in copy[:-1]}
        assert sources == admitted
        assert all((ROOT / source).exists() for source in sources)

    @pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
    def test_image_is_unprivileged_and_stops_on_sigterm(self, dockerfile: Path) -> None:
        stage = final_stage(dockerfile)
        assert int(stage["USER"]) > 0
        assert stage["STOPSIGNAL"] == "SIGTERM"
        assert json.loads(stage["CMD"])[0] == "muka"

    def test_only_the_api_is_published_and_on_loopback_only(self) -> None:
        published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
        assert published == {"api": ["127.0.0.1:8000:8000"]}

    def test_every_lasting_service_is_watched_and_restarted(self) -> None:
        for name, service in SERVICES.items():
            if name != "migrate":
                assert service["restart"] == "unless-stopped"
                assert "healthcheck" in service or "HEALTHCHECK" in image(service)

    def test_only_the_gpu_worker_asks_for_a_gpu(self) -> None:
        reservations = {name: str(service.get("deploy")) for name, service in SERVICES.items()}
        assert [name for name, text in reservations.items() if "nvidia" in text] == ["worker-gpu"]
        assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]

    def test_a_worker_has_time_for_its_last_checkpoint(self) -> None:
        assert seconds(SERVICES["worker"]["stop_grace_period"]) > Settings().stop_seconds


class Machine:
    """Stands in for the container engine: the services as processes, the network's names as ports."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.api_port = free_port()
        self._redis_port = free_port()
        self._database_url = database_url

    @property
    def api_url(self) -> str:
        """Where the API listens."""
        return f"http://127.0.0.1:{self.api_port}"

    def environment(self, name: str) -> dict[str, str]:
        """The container's, but for what one machine has only once."""
        inside = environment(SERVICES[name])
        own = self.folder / f"{name}-tmp"
        own.mkdir(exist_ok=True)
        for variable, text in inside.items():
            text = re.sub(r"^/tmp\b", str(own), text)  # noqa: PLW2901
            inside[variable] = re.sub(r"^/var/lib/muka\b", str(self.folder), text)
        inside["MUKA_BROKER_URL"] = inside["MUKA_BROKER_URL"].replace(
            "@redis:6379", f"@127.0.0.1:{self._redis_port}"
        )
        inside["MUKA_DATABASE_URL"] = self._database_url
        inside["PATH"] = f"{BIN}:{os.defpath}"
        return inside | ({"MUKA_PORT": str(self.api_port)} if name == "api" else {})

    def run(self, name: str, words: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in the service's environment to its end."""
        return subprocess.run(
            words,
            check=False,
            env=self.environment(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    @contextmanager
    def service(self, name: str, words: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
        """The service, stopped as the engine does it; it must not need the SIGKILL."""
        environ = self.environment(name) if name in OURS else None
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                words, env=environ, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(seconds(SERVICES[name].get("stop_grace_period", "10s")))
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def redis(self) -> Iterator["redis.Redis"]:
        """The broker, with the options of the compose file."""
        options = [*command(SERVICES["redis"])[1:], "--bind", "127.0.0.1", "--port", str(self._redis_port)]
        with self.service("redis", [redis_server_binary(), *options]):
            client = redis.Redis(
                port=self._redis_port, password=SECRETS["REDIS_PASSWORD"], decode_responses=True
            )
            wait_until(lambda: _listens(self._redis_port), "Redis is up")
            yield client
            client.close()


@pytest.fixture
def machine(tmp_path: Path, empty_postgres_url: Callable[[], str]) -> Machine:
    """With an empty database."""
    return Machine(tmp_path, empty_postgres_url())


class TestCommands:
    def test_redis_keeps_and_guards_what_it_is_given(self, machine: Machine) -> None:
        with machine.redis() as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            port = client.get_connection_kwargs()["port"]
            stranger = redis.Redis(port=port, retry=Retry(NoBackoff(), retries=0))
            with stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()

    def test_the_stack_comes_up_works_and_goes_down(self, machine: Machine) -> None:
        with machine.redis():
            for _ in range(2):  # `docker compose up` on a running system migrates again
                migrated = machine.run("migrate", command(SERVICES["migrate"]))
                assert migrated.returncode == 0, migrated.stderr

            with (
                machine.service("api", command(SERVICES["api"])) as api,
                machine.service("worker", command(SERVICES["worker"])) as worker,
                machine.service("predictor", command(SERVICES["predictor"])) as predictor,
            ):
                wait_until(lambda: _status(f"{machine.api_url}/readyz") == 200, "the API is ready")
                assert machine.run("api", health_check(SERVICES["api"])).returncode == 0
                assert _status(f"{machine.api_url}/amalgamations") == 401
                assert _status(f"{machine.api_url}/amalgamations", SECRETS["MUKA_API_KEY"]) == 200
                for name in ("worker", "predictor"):
                    check = health_check(SERVICES[name])
                    wait_until(
                        lambda n=name, c=check: machine.run(n, c).returncode == 0, f"{name} is healthy"
                    )
            assert (api.returncode, worker.returncode, predictor.returncode) == (0, 0, 0)
            for name in ("api", "worker", "predictor"):
                assert machine.run(name, health_check(SERVICES[name])).returncode != 0

    def test_the_api_refuses_to_listen_to_the_world_without_a_key(self, machine: Machine) -> None:
        words = ["env", "--unset=MUKA_API_KEY", *command(SERVICES["api"])]
        refused = machine.run("api", words)
        assert refused.returncode != 0
        assert "MUKA_API_KEY" in refused.stderr


def _listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def _status(url: str, key: str | None = None) -> int | None:
    """Of a GET; None while nobody listens, or nobody answers yet: the socket is there before the service."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
    except (URLError, TimeoutError):
        return None
