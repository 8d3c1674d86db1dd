"""Objects of another owner do not exist: on every route that there is, also on those that come later."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from app.api.dependencies import caller, owner
from app.api.scopes import needed_scope
from app.domain.access import SAFE_METHODS, Scope
from app.domain.identifiers import student_of
from app.domain.status import Status
from app.main import create_app
from app.persistence.tables import Checkpoint, Student
from app.services import keys
from app.services.backend import Backend
from app.settings import Settings
from tests.api_objects import add_model, add_student
from tests.unit.app.ingestion.archives import model_files, tar

Response = Any
"""Of the library that the test client is built on."""
OPEN_TO_ALL = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
EMPTY_BY_NATURE = {"/hub/{rest:path}"}
"""What answers 404 to the owner as well."""
TEXTS = b"where is my parcel\nI was charged twice\n"


@dataclass(frozen=True)
class Guarded:
    """A route that asks for a key."""

    method: str
    route: APIRoute

    @property
    def name(self) -> str:
        return f"{self.method} {self.route.path}"

    @property
    def names_an_object(self) -> bool:
        return "{" in self.route.path

    @property
    def scope(self) -> Scope:
        return needed_scope(self.route, self.method)


def guarded_routes(app: FastAPI) -> list[Guarded]:
    """Every route but those that are open to all, hidden ones too."""
    rooms = [app, *(each.original_router for each in app.routes if hasattr(each, "original_router"))]
    found = [
        Guarded(method, route)
        for room in rooms
        for route in room.routes
        if isinstance(route, APIRoute) and route.path not in OPEN_TO_ALL
        for method in sorted(route.methods or ())
    ]
    assert {each.route.path_format for each in found} >= app.openapi()["paths"].keys() - OPEN_TO_ALL
    return found


class World:
    """A service with two owners. acme has one object of every kind; the others have nothing."""

    def __init__(self, app: FastAPI, api: TestClient, backend: Backend) -> None:
        self.app = app
        self.api = api
        self.backend = backend
        self.acme = self.key("acme", Scope.READ, Scope.WRITE)
        self.stranger = self.key("stranger", Scope.READ, Scope.WRITE)
        self.document = app.openapi()
        self.objects: dict[str, str] = {}

    def key(self, owner: str, *scopes: Scope) -> str:
        return keys.create(self.backend.database, owner, scopes)[1]

    def send(self, key: str | None, method: str, path: str, **request: Any) -> Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.api.request(
            method, path, headers=headers | request.pop("headers", {}), follow_redirects=False, **request
        )

    def made(self, path: str, **request: Any) -> dict[str, Any]:
        answer = self.send(self.acme, "POST", path, **request)
        assert answer.status_code in (201, 202), answer.text
        created: dict[str, Any] = answer.json()
        return created

    def call(self, key: str | None, each: Guarded, **headers: str) -> Response:
        """The route with the ids of acme's objects, and a body that its document shows."""
        missing = re.findall(r"{(\w+)", each.route.path)
        unknown = [name for name in missing if name not in self.objects]
        assert not unknown, f"{each.name}: make acme such an object in the fixture `world`: {unknown}"
        path = re.sub(r"{(\w+)(:path)?}", lambda match: self.objects[match[1]], each.route.path)
        body = self._example(each)
        sent = {"json": body} if body is not None else {}
        return self.send(key, each.method, path, headers=headers, **sent)

    def _example(self, each: Guarded) -> Any:
        operation = self.document["paths"].get(each.route.path_format, {}).get(each.method.lower(), {})
        body = operation.get("requestBody", {})
        content = body.get("content", {}).get("application/json", {})
        if not content or not body.get("required"):
            return None
        named = content["schema"].get("$ref", "").rpartition("/")[2]
        shown = [example["value"] for example in content.get("examples", {}).values()]
        shown += self.document["components"]["schemas"].get(named, {}).get("examples", [])
        assert shown, f"{each.name}: give its body an example in the OpenAPI document"
        return shown[0]


@contextmanager
def world_of(settings: Settings, backend: Backend) -> Iterator[World]:
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as api:
        yield World(app, api, backend)


@pytest.fixture
def world(settings: Settings, backend: Backend, advance: Callable[..., None]) -> Iterator[World]:
    near = (ip_network("127.0.0.0/8"),)  # a webhook's messages go to a closed port, not to the Internet
    quick = settings.model_copy(update={"prediction_timeout_seconds": 0.2, "webhook_allowed_networks": near})
    with world_of(quick, backend) as made:
        corpus = made.made("/corpora?filename=inbox.txt", content=TEXTS)["id"]
        archive = io.BytesIO(tar(model_files()))
        model = made.made("/models", files={"file": ("model.tar", archive)})["id"]
        other = add_model(backend, ("late", "lost"), owner="acme")
        job = made.made("/amalgamations", json={"teachers": [model, other], "corpus": corpus})["id"]
        webhook = made.made("/webhooks", json={"url": "http://127.0.0.1:9/hook"})["id"]
        student = student_of(job)
        _publish(backend, job)
        advance(job, Status.SUCCEEDED, report={"of": "acme"}, student_id=student)
        made.objects = {
            "corpus_id": corpus,
            "model_id": model,
            "job_id": job,
            "student_id": student,
            "webhook_id": webhook,
            "path": "config.json",
            "namespace": "students",
            "name": student,
            "revision": "main",
            "checkpoint": "step-3",
            "folder": "",
            "rest": f"api/datasets/students/{student}",
        }
        yield made


def _publish(backend: Backend, job_id: str) -> None:
    """What the job's worker would: a checkpoint, and a student."""
    made = add_student(backend, owner="acme")
    with backend.database.write() as session:
        student = session.get_one(Student, made)
        student.id, student.amalgamation_id = student_of(job_id), job_id
        model = ("storage_prefix", "size_bytes", "files", "digest", "architecture", "labels", "parameters")
        of_model = {field: getattr(student, field) for field in model}
        training = {"step": 3, "total_steps": 9, "epoch": 0.3, "loss": 0.5, "attempt": 1}
        session.add(Checkpoint(amalgamation_id=job_id, **training, **of_model))


def test_without_a_key_every_route_is_closed(world: World) -> None:
    for each in guarded_routes(world.app):
        for key in (None, "muka_invented"):
            answer = world.call(key, each)
            assert answer.status_code == 401, each.name
            assert answer.headers["www-authenticate"] == "Bearer", each.name


def test_every_room_has_a_door(world: World) -> None:
    """So that a route is guarded even when it forgets to ask who calls."""
    rooms: list[Any] = [each for each in world.app.routes if hasattr(each, "original_router")]
    assert len(rooms) > 5
    for room in rooms:
        paths = {route.path for route in room.original_router.routes}
        doors = [each.dependency for each in room.include_context.dependencies]
        assert caller in doors or paths <= OPEN_TO_ALL, f"name the room of {paths} in GUARDED of app.main"


def test_with_a_strangers_key_every_object_of_acme_is_not_there(world: World) -> None:
    routes = [each for each in guarded_routes(world.app) if each.names_an_object]
    assert len(routes) > 25
    for each in routes:
        for revision, accepted in (("step-3", "text/event-stream"), ("main", "application/json")):
            world.objects["revision"] = revision
            answer = world.call(world.stranger, each, Accept=accepted)
            assert answer.status_code == 404, f"{each.name} answers a stranger: {answer.text}"
    # And acme's own key opens each of them: it was the owner that kept the stranger out.
    for each in sorted(routes, key=lambda each: each.method == "DELETE"):
        if each.route.path not in EMPTY_BY_NATURE:
            answer = world.call(world.acme, each)
            assert answer.status_code not in (401, 403, 404), f"{each.name}: {answer.text}"


def test_lists_hold_nothing_of_another_owner(world: World) -> None:
    lists = [
        each
        for each in guarded_routes(world.app)
        if each.method == "GET" and not each.names_an_object and each.scope != Scope.ADMIN
    ]
    assert len(lists) >= 4
    ids = [value for value in world.objects.values() if re.fullmatch(r"[a-z]{3}-[0-9a-f]{32}", value)]
    seen = set()
    for each in lists:
        answer = world.call(world.stranger, each)
        assert answer.status_code == 200, each.name
        assert not [value for value in ids if value in answer.text], each.name
        own = world.call(world.acme, each).text
        seen |= {value for value in ids if value in own}
    assert seen == set(ids), "acme's own lists have them all"


def test_a_key_does_no_more_than_its_scopes(world: World) -> None:
    read, write, admin = (world.key("beta", scope) for scope in Scope)
    for each in guarded_routes(world.app):
        closed_to = {Scope.READ: [write], Scope.WRITE: [read], Scope.ADMIN: [read, write]}[each.scope]
        for key in closed_to:
            answer = world.call(key, each)
            assert answer.status_code == 403, f"{each.name} needs {each.scope}"
            assert f'scope="{each.scope}"' in answer.headers["www-authenticate"]
        assert world.call(admin, each).status_code not in (401, 403), each.name


def test_changing_anything_needs_more_than_read(world: World) -> None:
    readable = {each.name for each in guarded_routes(world.app) if each.scope == Scope.READ}
    posts = {name for name in readable if name.partition(" ")[0] not in SAFE_METHODS}
    assert posts == {"POST /amalgamations/plan", "POST /students/{student_id}/predictions"}


def test_every_route_says_whose_objects_it_means(world: World) -> None:
    careless = [
        each.name
        for each in guarded_routes(world.app)
        if each.scope != Scope.ADMIN and not _asks_for_the_owner(each.route)
    ]
    assert careless == [], "these routes never say whose objects they mean"


def _asks_for_the_owner(route: APIRoute) -> bool:
    waiting, asked = [route.dependant], set()
    while waiting:
        dependant = waiting.pop()
        asked.add(dependant.call)
        waiting += dependant.dependencies
    return bool(asked & {owner, caller})


class TestAcrossObjects:
    """What a stranger's request names of acme is not found, with the words for what was never there."""

    def test_in_a_recipe(self, world: World) -> None:
        own = [add_model(world.backend, labels, owner="stranger") for labels in (("a", "b"), ("c", "d"))]
        corpus = world.send(world.stranger, "POST", "/corpora?filename=a.txt", content=b"one\ntwo\n").json()

        def fault(route: str, changes: dict[str, Any]) -> str:
            recipe = {"teachers": own, "corpus": corpus["id"], **changes}
            answer = world.send(world.stranger, "POST", route, json=recipe)
            found = answer.json()
            faults = found["errors"] if answer.status_code == 422 else found["problems"]
            assert len(faults) == 1, (changes, answer.text)
            return re.sub("[0-9a-f]{32}", "…", str(faults[0]))

        for route in ("/amalgamations", "/amalgamations/plan"):
            for place, of_acme in world.objects.items():
                never_there = f"{of_acme[:4]}{'0' * 32}"
                for change in self._named(own).get(place, []):
                    assert fault(route, change(of_acme)) == fault(route, change(never_there))

    def _named(self, own: list[str]) -> dict[str, list[Callable[[str], dict[str, Any]]]]:
        """Every place of a recipe that an object of this kind can stand in."""

        def teacher(name: str) -> dict[str, Any]:
            return {"teachers": [*own, name]}

        def start(name: str) -> dict[str, Any]:
            return {"student": {"init_from": name}}

        return {
            "model_id": [teacher, start],
            "student_id": [teacher, start, lambda name: teacher(f"{name}@step-3")],
            "corpus_id": [lambda name: {"corpus": name}, lambda name: {"evaluation": {"corpus": name}}],
        }

    def test_the_same_file_of_two_owners_is_two_corpora(self, world: World) -> None:
        url = "/corpora?filename=inbox.txt"
        first, again = (world.send(world.stranger, "POST", url, content=TEXTS) for _ in range(2))
        assert (first.status_code, again.status_code) == (201, 200), "acme has had it for long"
        assert first.json()["id"] == again.json()["id"] != world.objects["corpus_id"]
        assert world.send(world.acme, "POST", url, content=TEXTS).json()["id"] == world.objects["corpus_id"]

    def test_the_same_model_of_two_owners_is_two_models(self, world: World) -> None:
        archive = {"file": ("model.tar", tar(model_files()))}
        answer = world.send(world.stranger, "POST", "/models", files=archive)
        assert (answer.status_code, answer.json()["id"] != world.objects["model_id"]) == (201, True)

    def test_one_idempotency_key_of_two_api_keys_is_two_requests(self, world: World) -> None:
        recipe = {
            "teachers": [add_model(world.backend, pair, owner="acme") for pair in (("a", "b"), ("c", "d"))],
            "corpus": world.objects["corpus_id"],
        }
        once = {"Idempotency-Key": "order-1"}
        colleague = world.key("acme", Scope.WRITE)
        jobs = [
            world.send(key, "POST", "/amalgamations", json=recipe, headers=once)
            for key in (world.acme, world.acme, colleague)
        ]
        ids = [answer.json()["id"] for answer in jobs]
        assert ids[0] == ids[1] != ids[2]
        assert [answer.headers.get("idempotency-replayed") for answer in jobs] == [None, "true", None]

    def test_keys_of_one_owner_share_its_objects(self, world: World) -> None:
        colleague = world.key("acme", Scope.READ)
        answer = world.send(colleague, "GET", f"/corpora/{world.objects['corpus_id']}")
        assert answer.status_code == 200
