"""Students that stay loaded, so that the next question does not wait for the disk."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.domain.prediction import Question

if TYPE_CHECKING:
    from worker.muka import Student


class WarmStudents:
    """The least recently used go first, before a new one is loaded: memory stays within the bounds.

    Args:
        load: Reads a student from the store.
        max_models: How many stay.
        max_bytes: Of their files together; one that is larger is loaded all the same, and stays alone.
    """

    def __init__(self, load: "Callable[[Question], Student]", *, max_models: int, max_bytes: int) -> None:
        self._load = load
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._loaded: OrderedDict[str, tuple[Student, int]] = OrderedDict()

    def get(self, question: Question) -> "Student":
        """The student that is asked, loaded now or before; raises what loading raises."""
        key = question.storage_prefix
        if key not in self._loaded:
            self._make_room(question.size_bytes)
            self._loaded[key] = self._load(question), question.size_bytes
        self._loaded.move_to_end(key)
        return self._loaded[key][0]

    def _make_room(self, size_bytes: int) -> None:
        while self._loaded and not self._fits(size_bytes):
            self._loaded.popitem(last=False)

    def _fits(self, size_bytes: int) -> bool:
        total = sum(size for _, size in self._loaded.values())
        return len(self._loaded) < self._max_models and total + size_bytes <= self._max_bytes
