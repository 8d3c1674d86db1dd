"""New jobs of requests that come at the same time, committed together.

A transaction costs about as much for thirty jobs as for one: the ways to the database and back, and a disk
that must have it all before anybody is answered.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session, make_transient

from app.domain.errors import Fault, InvalidRequestError
from app.domain.recipe import Resolved
from app.domain.revisions import own_id
from app.persistence import amalgamations, owned
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.services.idempotency import Answer, Once, keep_all

MOST_AT_ONCE = 50
_log = logging.getLogger(__name__)


@dataclass
class Entry:
    """A job that was checked and wants to be queued."""

    job: Amalgamation
    once: Once | None
    """The idempotency key, claimed, when the client sent one."""
    render: Callable[[Amalgamation, int], dict[str, Any]]
    """Makes the answer from the new job and its place in the queue, inside the transaction."""
    answer: Answer | None = None
    was_tried: bool = False
    """By a group's transaction. Without an answer it has failed, by whosever fault."""


class Admissions:
    """Group commit: who comes while a transaction is under way shares the next one with all who wait.

    A group waits for nobody's locks. Where it cannot be committed at once and as a whole, each of it goes on
    by itself, as if there were no groups: nobody waits or fails by another's fault.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._waiting: deque[Entry] = deque()

    def admit(self, entry: Entry) -> Answer:
        """Store the job, its first event and the answer, all or nothing; returns when that is committed.

        Raises:
            InvalidRequestError: what the job needs was deleted while it was checked.
            RequestInFlightError: its request was taken for dead, and another one is carried out.
            SQLAlchemyError: the database failed.
        """
        self._waiting.append(entry)
        while not entry.was_tried:
            with self._turn:
                self._try([self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))])
        return entry.answer or self._alone(entry)

    def _try(self, group: Sequence[Entry]) -> None:
        """An empty one where whoever had the turn before has taken us along."""
        try:
            for entry, answer in zip(group, self._commit(group, wait=False), strict=True):
                entry.answer = answer
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised again where it belongs)
            _log.info("%d new jobs go on one by one: %s", len(group), type(error).__name__)
        finally:
            for entry in group:
                entry.was_tried = True

    def _alone(self, entry: Entry) -> Answer:
        make_transient(entry.job)  # what was rolled back is not there to be updated
        return self._commit([entry], wait=True)[0]

    def _commit(self, group: Sequence[Entry], *, wait: bool) -> list[Answer]:
        jobs = [entry.job for entry in group]
        if not jobs:
            return []
        with self._database.write() as session:
            faults = lock_inputs(session, jobs, "was deleted while the request was checked", wait=wait)
            if faults:
                raise InvalidRequestError(
                    f"the job cannot be created: {faults[0].detail}; create it with what there is now",
                    faults=faults,
                )
            before = amalgamations.add_all(session, jobs)
            answers = [
                Answer(entry.job.id, entry.render(entry.job, before[entry.job.id]), 202) for entry in group
            ]
            keep_all(session, [(entry.once, answer) for entry, answer in zip(group, answers, strict=True)])
        return answers


def lock_inputs(
    session: Session, jobs: Sequence[Amalgamation], what_happened: str, *, wait: bool = True
) -> list[Fault]:
    """Hold what the jobs need until they are committed, so that nobody deletes it in between.

    Answers a fault for each thing that is gone, which says what happened. `wait`: for whoever has it locked;
    False: an `OperationalError` at once.
    """
    needed = [(job.owner, pointer, each) for job in jobs for pointer, each in _needed(job)]
    held = owned.hold_all(session, {(owner, object_id) for owner, _, object_id in needed}, wait=wait)
    return [
        Fault(pointer, "deleted", f"{object_id} {what_happened}")
        for owner, pointer, object_id in needed
        if (owner, object_id) not in held
    ]


def _needed(job: Amalgamation) -> list[tuple[str, str]]:
    """Ids of stored objects, each with the pointer to where the recipe names it."""
    resolved = Resolved.model_validate(job.resolved)
    needed = [("/corpus", resolved.corpus_id)]
    if resolved.evaluation_corpus_id:
        needed.append(("/evaluation/corpus", resolved.evaluation_corpus_id))
    for index, teacher in enumerate(resolved.teachers):
        if teacher.object_id:
            needed.append((f"/teachers/{index}/model", teacher.object_id))
    if resolved.student.storage_prefix:
        needed.append(("/student/init_from", own_id(job.recipe["student"]["init_from"])))
    return needed
