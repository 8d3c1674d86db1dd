"""How far a job is: throttled into the row by the heartbeat, stages and metrics at once as events."""

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from app.domain.status import Stage

_METRIC_POINTS = 200
"""Points of a training curve, at most about."""


class Row(Protocol):
    """What progress needs of a lease."""

    def tell(self, kind: str, message: str, data: dict[str, Any] | None = None, **columns: Any) -> None:
        """Append an event and set columns, in one transaction."""


class Progress:
    """Fraction, steps and time to go of one attempt. One thread tells it, another one reads it."""

    def __init__(self, row: Row, weights: Mapping[Stage, float]) -> None:
        """
        Args:
            row: where stages and metrics go at once.
            weights: how much of the whole each stage is; only their proportions count.
        """  # noqa: D205, D212  (a class is documented at the class)
        self._row = row
        total = sum(weights.values())
        self._weights = {stage: weights[stage] / total for stage in Stage}
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._stage: Stage | None = None
        self._stage_fraction = 0.0
        self._first_fraction: float | None = None
        self._step: int | None = None
        self._total_steps: int | None = None
        self._changed = False

    def begin(self, stage: Stage, message: str, **data: Any) -> None:
        """The next stage begins: told at once."""
        with self._lock:
            self._stage, self._stage_fraction, self._changed = stage, 0.0, False
            progress = self._value()
        self._row.tell("stage", message, {"stage": stage, **data}, stage=stage, progress=progress)

    def advance(self, done: float, total: float) -> None:
        """So much of the present stage is done; the heartbeat writes it when it next beats."""
        with self._lock:
            self._stage_fraction = min(1.0, done / total) if total else 1.0
            if self._first_fraction is None:
                self._first_fraction = self._fraction()
            self._changed = True

    def step(self, step: int, total_steps: int, metrics: Mapping[str, float]) -> None:
        """One training step is done; its metrics are told when they are a point of the curve."""
        self.advance(step, total_steps)
        with self._lock:
            self._step, self._total_steps = step, total_steps
        if step == total_steps or step % max(1, total_steps // _METRIC_POINTS) == 0:
            self._row.tell("metric", f"step {step} of {total_steps}", {"step": step, **metrics})

    def fresh_columns(self) -> dict[str, Any]:
        """The column `progress` when it changed since the last call."""
        with self._lock:
            if not self._changed:
                return {}
            self._changed = False
            return {"progress": self._value()}

    def finished(self) -> dict[str, Any]:
        """The value of a job that has succeeded."""
        with self._lock:
            return {**self._value(), "fraction": 1.0, "stage_fraction": 1.0, "eta_seconds": 0.0}

    def _fraction(self) -> float:
        before = 0.0
        for stage in Stage:
            if stage == self._stage:
                return before + self._weights[stage] * self._stage_fraction
            before += self._weights[stage]
        return 0.0

    def _value(self) -> dict[str, Any]:
        fraction = self._fraction()
        return {
            "fraction": round(fraction, 4),
            "stage_fraction": round(self._stage_fraction, 4),
            "step": self._step,
            "total_steps": self._total_steps,
            "eta_seconds": self._eta(fraction),
            "updated_at": datetime.now(UTC).isoformat(),
        }

    def _eta(self, fraction: float) -> float | None:
        """At the pace of this attempt so far; None before there is one. What was reused is no pace."""
        gained = fraction - (self._first_fraction or 0.0)
        if self._first_fraction is None or gained < 0.01:
            return None
        return round((time.monotonic() - self._started) * (1 - fraction) / gained, 1)
