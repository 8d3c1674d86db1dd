"""What the database has of the objects that recipes name, asked for all of them at once."""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.domain.identifiers import Prefix, has_prefix
from app.domain.recipe import Recipe
from app.domain.revisions import own_id
from app.persistence import corpora, expired, owned
from app.persistence.owned import Owned
from app.persistence.tables import Corpus, Model, Student


@dataclass(frozen=True)
class StoredObjects:
    """Corpora, uploaded models and students, each of its owner."""

    corpora: Mapping[Owned, Corpus]
    models: Mapping[Owned, Model | Student]
    expired: AbstractSet[Owned]
    """Corpora whose time is over, removed ones among them."""


def named_in(owner: str, recipe: Recipe) -> set[Owned]:
    """What the recipe names, as ids where it is ours: `students/stu-…` and `stu-…@main` are `stu-…`."""
    names = [*[own_id(teacher.model) for teacher in recipe.teachers], own_id(recipe.student.init_from)]
    if isinstance(recipe.corpus, str):
        names.append(recipe.corpus)
    if recipe.evaluation:
        names.append(recipe.evaluation.corpus)
    return {(owner, name) for name in names}


def look_up(session: Session, wanted: Collection[Owned]) -> StoredObjects:
    """Those that there are; what is no id of such an object is not found."""
    texts = _of_kind(wanted, Prefix.CORPUS)
    found = owned.find_all(session, Corpus, texts)
    late = corpora.expired_among(session, found.values())
    removed = expired.marked_among(session, texts - found.keys())
    models: dict[Owned, Model | Student] = {}
    models |= owned.find_all(session, Model, _of_kind(wanted, Prefix.MODEL))
    models |= owned.find_all(session, Student, _of_kind(wanted, Prefix.STUDENT))
    return StoredObjects(
        corpora=found,
        models=models,
        expired={each for each in found if each[1] in late} | removed,
    )


def _of_kind(wanted: Collection[Owned], prefix: Prefix) -> set[Owned]:
    return {each for each in wanted if has_prefix(each[1], prefix)}
