"""Can this process work? Asks database, broker and store, each within a short time."""

import threading
import time
from collections.abc import Callable

from app.services.backend import Backend

PATIENCE_SECONDS = 3.0


class _Check(threading.Thread):
    """One question to one part, in a thread of its own: a part that hangs never holds a request."""

    def __init__(self, name: str, ask: Callable[[], None]) -> None:
        super().__init__(name=f"ready-{name}", daemon=True)
        self._ask = ask
        self.answered = False

    def run(self) -> None:
        """Ask once."""
        try:
            self._ask()
        except Exception:  # noqa: BLE001  (whatever a driver raises, the part is not ready)
            return
        self.answered = True


class Readiness:
    """Asks the parts of one backend. A part that still hangs from the last time is not asked again."""

    def __init__(self, backend: Backend) -> None:
        self._parts: dict[str, Callable[[], None]] = {
            "database": backend.database.check,
            "broker": backend.queue.check,
            "store": backend.store.check,
        }
        self._checks: dict[str, _Check] = {}
        self._lock = threading.Lock()

    def failing(self) -> list[str]:
        """Names of the parts that do not answer; empty: all is well."""
        checks = {name: self._check(name) for name in self._parts}
        deadline = time.monotonic() + PATIENCE_SECONDS
        for check in checks.values():
            check.join(max(0.0, deadline - time.monotonic()))
        return [name for name, check in checks.items() if not check.answered]

    def _check(self, name: str) -> _Check:
        with self._lock:
            current = self._checks.get(name)
            if current is None or not current.is_alive():
                current = self._checks[name] = _Check(name, self._parts[name])
                current.start()
            return current
