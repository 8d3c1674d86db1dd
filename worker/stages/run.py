"""What every stage has in its hands."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch

from worker.assignment import Assignment
from worker.corpus import LabelledTexts, Texts
from worker.muka import LabelSpace, Method, StoppedError, Training, get_method
from worker.patience import wait
from worker.progress import Progress


@dataclass
class Run:
    """What is known so far; each stage adds to it."""

    assignment: Assignment
    progress: Progress
    device: torch.device
    scratch: Path
    """On whose disk everything lies that has a row for each text."""
    folders: list[Path] = field(default_factory=list)
    texts: Texts = field(init=False)
    gold: LabelledTexts | None = None
    """Held-out texts with their labels, where the job names an evaluation corpus."""
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, assignment: Assignment, progress: Progress) -> Self:
        """On this machine's GPU, if there is one."""
        scratch = assignment.settings.resolved_scratch_dir()
        scratch.mkdir(parents=True, exist_ok=True)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(assignment, progress, device, scratch)

    @property
    def method(self) -> Method:
        """The recipe's, as the library has it."""
        return get_method(**self.assignment.recipe.method.model_dump())

    @property
    def training(self) -> Training:
        """The recipe's, as the library has it."""
        return Training(**self.assignment.recipe.training.model_dump())

    @property
    def labels(self) -> LabelSpace:
        """The union of the teachers' labels."""
        return LabelSpace.union([teacher.labels for teacher in self.assignment.resolved.teachers])

    def should_stop(self) -> bool:
        """Asked by the library before every step and batch."""
        return self.assignment.lease.should_stop()

    def stop_if_asked(self) -> None:
        """Raises `StoppedError` when there is a reason to stop."""
        if self.should_stop():
            raise StoppedError

    def stop_or_go_on(self) -> None:
        """As `stop_if_asked`, and a sign that something moves, where there is no progress to count."""
        self.stop_if_asked()
        self.assignment.lease.moved_at = time.monotonic()

    def wait(self, seconds: float, why: str) -> None:
        """Let time pass, and tell of it; a reason to stop ends it."""
        wait(self.assignment.lease, seconds, why)

    def counter(self, total: int) -> Callable[[float], None]:
        """Adds up what the library says is done, and is where long passes without `should_stop` end."""
        done = 0.0

        def count(more: float) -> None:
            nonlocal done
            self.stop_if_asked()
            done += more
            self.progress.advance(done, total)

        return count
