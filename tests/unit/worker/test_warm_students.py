"""Which students stay loaded: the last ones asked, within both bounds."""

from typing import Any

import pytest

from app.domain.prediction import Question
from worker.warm_students import WarmStudents


class Shelf:
    """Counts what is loaded from it."""

    def __init__(self, **bounds: int) -> None:
        self.loaded: list[str] = []
        self.warm = WarmStudents(self._load, **{"max_models": 3, "max_bytes": 100, **bounds})

    def _load(self, question: Question) -> Any:
        if question.student_id == "broken":
            raise FileNotFoundError(question.student_id)
        self.loaded.append(question.student_id)
        return f"student {question.student_id}"

    def ask(self, names: str, size_bytes: int = 1) -> None:
        for name in names.split():
            question = Question(
                student_id=name, digest="", storage_prefix=f"s/{name}", size_bytes=size_bytes, texts=["x"]
            )
            assert self.warm.get(question) == f"student {name}"


def test_what_is_asked_again_is_not_loaded_again() -> None:
    shelf = Shelf()
    shelf.ask("a b a c b a")
    assert shelf.loaded == ["a", "b", "c"]


def test_the_least_recently_used_goes_when_there_are_too_many() -> None:
    shelf = Shelf()
    shelf.ask("a b c a d")
    shelf.ask("a c d b")
    assert shelf.loaded == ["a", "b", "c", "d", "b"]


def test_as_many_go_as_a_large_one_needs() -> None:
    shelf = Shelf()
    shelf.ask("a b c", 30)
    shelf.ask("large", 60)
    shelf.ask("c", 30)
    assert shelf.loaded == ["a", "b", "c", "large"]
    shelf.ask("b", 30)
    assert shelf.loaded[-1] == "b"


def test_one_that_is_too_large_is_loaded_and_stays_alone() -> None:
    shelf = Shelf()
    shelf.ask("a b")
    shelf.ask("huge huge", 1000)
    assert shelf.loaded == ["a", "b", "huge"]
    shelf.ask("a")
    shelf.ask("huge", 1000)
    assert shelf.loaded == ["a", "b", "huge", "a", "huge"]


def test_one_that_cannot_be_loaded_is_tried_again() -> None:
    shelf = Shelf(max_models=1)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            shelf.ask("broken")
    shelf.ask("a a")
    assert shelf.loaded == ["a"]
