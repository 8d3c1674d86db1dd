"""The service as a Hugging Face Hub, read-only: `HF_ENDPOINT=http://host:port/hub`.

The protocol is the Hub's, so it is not part of our OpenAPI document; errors are in the Hub's form, too.
Checked against the clients themselves in `tests/integration/api/test_hub_door.py`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import JSONResponse

from app.api.dependencies import BackendDep, OwnerDep
from app.api.file_answers import answer_file
from app.domain.revisions import MAIN
from app.services import hub_door
from app.services.hub_door import RepositoryFile

router = APIRouter(prefix="/hub", tags=["hub"], include_in_schema=False)

Namespace = Annotated[str, Path()]
Name = Annotated[str, Path()]


@router.api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
def resolve(
    request: Request,
    *,
    namespace: Namespace,
    name: Name,
    revision: str,
    path: str,
    backend: BackendDep,
    owner: OwnerDep,
) -> Response:
    """One file, or a range of it."""
    commit = hub_door.find(backend, owner, namespace, name, revision)
    answer = answer_file(request, hub_door.file(backend, commit, path), backend.store)
    answer.headers["X-Repo-Commit"] = commit.sha
    return answer


@router.get("/api/models/{namespace}/{name}")
@router.get("/api/models/{namespace}/{name}/revision/{revision}")
def model_info(
    *,
    namespace: Namespace,
    name: Name,
    revision: str = MAIN,
    backend: BackendDep,
    owner: OwnerDep,
    blobs: Annotated[bool, Query()] = False,
) -> Response:
    """What there is to know of a model, with its files."""
    commit = hub_door.find(backend, owner, namespace, name, revision)
    return JSONResponse(hub_door.facts(commit, with_sizes=blobs))


@router.get("/api/models/{namespace}/{name}/tree/{revision}")
@router.get("/api/models/{namespace}/{name}/tree/{revision}/{folder:path}")
def tree(
    *,
    namespace: Namespace,
    name: Name,
    revision: str,
    folder: str = "",
    backend: BackendDep,
    owner: OwnerDep,
    recursive: Annotated[bool, Query()] = False,
) -> Response:
    """Files and folders."""
    commit = hub_door.find(backend, owner, namespace, name, revision)
    return JSONResponse([_entry(each) for each in commit.below(folder.strip("/"), recursive=recursive)])


@router.get("/api/models/{namespace}/{name}/refs")
def refs(namespace: Namespace, name: Name, backend: BackendDep, owner: OwnerDep) -> Response:
    """The branch `main` and a tag a checkpoint."""
    return JSONResponse(hub_door.refs(hub_door.revisions(backend, owner, namespace, name)))


@router.api_route("/{rest:path}", methods=["GET", "HEAD"])
def nothing_else(rest: str, _owner: OwnerDep) -> Response:
    """Other kinds of repositories, and names that none of ours has."""
    raise hub_door.no_repository(rest.removeprefix("api/").removeprefix("models/"))


def _entry(each: RepositoryFile | str) -> dict[str, Any]:
    if isinstance(each, str):
        return {"type": "directory", "path": each, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": each.path, **hub_door.contents(each, "oid")}
