"""From what stands on the command line to the body of `POST /amalgamations`; local files are uploaded."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.client import InputError, MukaClient
from app.domain.identifiers import Prefix, has_prefix

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")

Note = Callable[[str], None]


def read_recipe(path: Path | None) -> dict[str, Any]:
    """The body in a JSON file; empty without one.

    Raises:
        InputError: it is no JSON object.
    """
    if path is None:
        return {}
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(recipe, dict):
        raise InputError(f"{path} holds no JSON object: write a body of POST /amalgamations into it")
    return recipe


def merged(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with what the command line gives; a part such as `training` is merged field by field."""
    body = dict(recipe)
    for key, value in given.items():
        if isinstance(value, Mapping):
            body[key] = dict(body.get(key) or {}) | {k: v for k, v in value.items() if v is not None}
        elif value:
            body[key] = value
    return {key: value for key, value in body.items() if value != {}}


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`k=v` arguments as a mapping."""
    split = [text.partition("=") for text in texts]
    for key, mark, _ in split:
        if not key or not mark:
            raise InputError(f"{option} takes KEY=VALUE, not {key + mark!r}")
    return {key: value for key, _, value in split}


def with_labels(teachers: Sequence[Any], renames: Sequence[str], drops: Sequence[str]) -> list[Any]:
    """The teachers, with the label mappings of `--rename TEACHER:OLD=NEW` and `--drop TEACHER:LABEL`.

    TEACHER is its number (0 is the first, as in `teachers/0`) or its name as given.
    """
    specs = [dict(t) if isinstance(t, Mapping) else {"model": t} for t in teachers]
    changes: list[tuple[str, str, str | None]] = []
    for text in renames:
        old, mark, new = text.partition("=")
        if not mark or not new:
            raise InputError(
                f"--rename takes TEACHER:OLD=NEW, not {text!r}; to leave a label out: --drop TEACHER:OLD"
            )
        changes.append(("--rename", old, new))
    changes += [("--drop", text, None) for text in drops]
    for option, place, name in changes:
        spec, label = _find_label(specs, place, option)
        spec["labels"] = dict(spec.get("labels") or {}) | {label: name}
    return [spec if spec.get("labels") else spec["model"] for spec in specs]


def uploaded(
    client: MukaClient, body: Mapping[str, Any], columns: Mapping[str, str | None], note: Note
) -> dict[str, Any]:
    """The body with every local file or folder uploaded, and its id in its place.

    Args:
        client: of the service.
        body: of `POST /amalgamations`, still with paths.
        columns: `text_column` and `label_column` of local corpora.
        note: told what is uploaded.

    Raises:
        InputError: something is neither an id nor there.
    """
    text_column = columns.get("text_column")
    ready = dict(body)
    ready["teachers"] = [_teacher(client, teacher, note) for teacher in body.get("teachers") or []]
    if isinstance(body.get("corpus"), str):
        ready["corpus"] = _corpus(client, body["corpus"], note, text_column=text_column)
    evaluation = body.get("evaluation")
    if isinstance(evaluation, Mapping) and isinstance(evaluation.get("corpus"), str):
        label_column = columns.get("label_column") or "label"
        corpus = _corpus(
            client, evaluation["corpus"], note, text_column=text_column, label_column=label_column
        )
        ready["evaluation"] = dict(evaluation) | {"corpus": corpus}
    return ready


def _find_label(specs: Sequence[dict[str, Any]], place: str, option: str) -> tuple[dict[str, Any], str]:
    for number, spec in enumerate(specs):
        for name in (str(number), spec["model"]):
            label = place.removeprefix(f"{name}:")
            if label not in {place, ""}:
                return spec, label
    known = ", ".join(f"{number} ({spec['model']})" for number, spec in enumerate(specs))
    raise InputError(f"{option} {place!r} names no teacher: write TEACHER:LABEL with TEACHER one of {known}")


def _teacher(client: MukaClient, teacher: Any, note: Note) -> Any:
    if isinstance(teacher, Mapping):
        return dict(teacher) | {"model": _teacher(client, teacher.get("model"), note)}
    if not isinstance(teacher, str) or _is_id(teacher, Prefix.MODEL, Prefix.STUDENT):
        return teacher
    path = Path(teacher).expanduser()
    if path.is_dir() or (path.is_file() and teacher.endswith(ARCHIVES)):
        note(f"Uploading the teacher {teacher}")
        return client.models.upload(path).id
    if teacher.startswith((".", "/", "~")) or teacher.endswith(ARCHIVES):
        raise InputError(f"there is no folder or archive {teacher}; a teacher on the Hub is written ORG/NAME")
    return teacher


def _corpus(client: MukaClient, corpus: str, note: Note, **columns: str | None) -> str:
    if _is_id(corpus, Prefix.CORPUS):
        return corpus
    path = Path(corpus).expanduser()
    if not path.is_file():
        raise InputError(f"{corpus} is neither a corpus id (cor-…) nor a file that is there")
    note(f"Uploading the texts in {corpus}")
    return client.corpora.upload(path, **columns).id


def _is_id(text: str, *kinds: Prefix) -> bool:
    return any(has_prefix(text, kind) for kind in kinds)
