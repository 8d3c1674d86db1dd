"""What jobs do, told a second time: in memory, one action after the other, with a clock that only jumps.

The model knows nothing of rows, locks or SQL; `test_state_machine` holds the real functions to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from app.domain.status import TERMINAL, Status

LEASE_SECONDS = 900
SEND_AGAIN_SECONDS = 600
JUMPS = (230, 470, 970)
"""No sum of them comes within 30 s below a limit, so that the seconds a test takes change nothing."""
MAX_ATTEMPTS = 3
LEASED = frozenset({Status.RUNNING, Status.CANCELLING})


class Do(StrEnum):
    """Who does what to a job."""

    CLAIM = "a worker takes it"
    BEAT = "an attempt renews its lease"
    TELL = "an attempt appends an event"
    SAVE = "an attempt publishes a checkpoint"
    PUBLISH = "an attempt publishes its student"
    FAIL = "an attempt tells its failure"
    STOP_CANCELLED = "an attempt ends at the user's wish"
    STOP_TIMEOUT = "an attempt ends for lack of time"
    GIVE_BACK = "an attempt stops with its worker"
    LOSE = "a parent saw its attempt die"
    LOSE_BY_NAME = "a parent lost sight of what its name holds"
    END_LEASES = "a supervisor saw a worker die"
    CANCEL = "the user cancels"
    CANCEL_KEEPING = "the user cancels and wants what is trained so far"
    RESUME = "the user resumes"
    DELETE = "the user deletes"
    REAP = "a caretaker reaps"
    DISPATCH = "a caretaker dispatches"


@dataclass(frozen=True)
class Action:
    """One thing to do; `attempt` and `worker` matter to some of them only."""

    do: Do
    job: int
    attempt: int
    worker: str


@dataclass(frozen=True)
class Job:
    """One job, as far as its engine is concerned. `status=None`: it was deleted."""

    status: Status | None = Status.QUEUED
    attempt: int = 0
    losses: int = 0
    owner: str | None = None
    lease_left: int = 0
    sent_ago: int | None = None
    events: int = 1
    is_saved: bool = False
    """There is a checkpoint."""
    keeps: bool = False
    """A cancel makes it the student."""
    has_student: bool = False

    @property
    def is_live(self) -> bool:
        """True until it has ended."""
        return self.status == Status.QUEUED or self.status in LEASED

    @property
    def lease_is_over(self) -> bool:
        """True when the caretaker may settle it."""
        return self.status in LEASED and self.lease_left < 0

    def later(self, seconds: int) -> "Job":
        """The same when time has passed."""
        sent_ago = None if self.sent_ago is None else self.sent_ago + seconds
        return replace(self, lease_left=self.lease_left - seconds, sent_ago=sent_ago)

    def seen(self) -> tuple[object, ...]:
        """What a look at the row must show."""
        if self.status is None:
            return (None,)
        waits = self.status == Status.QUEUED and (self.sent_ago is None or self.sent_ago > SEND_AGAIN_SECONDS)
        held = self.owner, self.lease_is_over, waits
        return self.status, self.attempt, self.losses, *held, self.events, self.has_student


LIKELY: dict[Status | None, tuple[Do, ...]] = {
    Status.QUEUED: (Do.CLAIM, Do.CLAIM, Do.CLAIM, Do.CANCEL, Do.DISPATCH),
    Status.RUNNING: (*(do for do in Do if do not in {Do.CLAIM, Do.DELETE, Do.DISPATCH}), Do.CANCEL, Do.REAP),
    Status.CANCELLING: (
        *(Do.GIVE_BACK, Do.LOSE, Do.REAP, Do.STOP_CANCELLED, Do.PUBLISH, Do.BEAT, Do.SAVE),
        *(Do.CANCEL, Do.CANCEL_KEEPING),
    ),
    Status.FAILED: (Do.RESUME, Do.RESUME, Do.CANCEL_KEEPING, Do.DELETE),
    Status.CANCELLED: (Do.RESUME, Do.RESUME, Do.CANCEL_KEEPING, Do.DELETE),
}
"""What brings a job on, or may get in the way of it; the rest must change nothing."""


def choose(job: Job, number: int) -> Do:
    """Two times out of three something that matters in the job's state."""
    likely = tuple(Do) if number % 3 == 0 else LIKELY.get(job.status, tuple(Do))
    return likely[number // 3 % len(likely)]


Jobs = tuple[Job, ...]
Answer = object
"""What the actor is told; None where there is nothing to tell."""
LOST = "lost"
"""The attempt does not hold the job: stop at once."""


def perform(jobs: Jobs, action: Action) -> tuple[Jobs, Answer]:
    """All jobs after the action, and its answer."""
    if action.do in EVERY_JOB:
        return tuple(EVERY_JOB[action.do](job, action) for job in jobs), None
    job, answer = ONE_JOB[action.do](jobs[action.job], action)
    return (*jobs[: action.job], job, *jobs[action.job + 1 :]), answer


def _to(job: Job, status: Status) -> Job:
    """Another status, told by one event; who ends or waits is held by nobody."""
    owner = job.owner if status in LEASED else None
    keeps = status == Status.CANCELLED and job.keeps and job.is_saved
    has_student = keeps or status == Status.SUCCEEDED
    return replace(job, status=status, events=job.events + 1, owner=owner, has_student=has_student)


def _queued_again(job: Job) -> Job:
    return replace(_to(job, Status.QUEUED), sent_ago=None)


def _claim(job: Job, action: Action) -> tuple[Job, Answer]:
    if job.status != Status.QUEUED:
        return job, None
    taken = replace(job, attempt=job.attempt + 1, owner=action.worker, lease_left=LEASE_SECONDS)
    return _to(taken, Status.RUNNING), taken.attempt


def _by_holder(change: Callable[[Job], Job]) -> Callable[[Job, Action], tuple[Job, Answer]]:
    """What only the attempt that holds the job can do."""

    def perform_fenced(job: Job, action: Action) -> tuple[Job, Answer]:
        holds = job.status in LEASED and job.attempt == action.attempt
        return (change(job), None) if holds else (job, LOST)

    return perform_fenced


def _beat(job: Job) -> Job:
    return replace(job, lease_left=LEASE_SECONDS)


def _tell(job: Job) -> Job:
    return replace(job, events=job.events + 1, lease_left=LEASE_SECONDS)


def _save(job: Job) -> Job:
    return replace(job, events=job.events + 1, is_saved=True)


def _give_back(job: Job) -> Job:
    return _queued_again(job) if job.status == Status.RUNNING else _to(job, Status.CANCELLED)


def _lost(job: Job) -> Job:
    if job.status == Status.CANCELLING:
        return _to(job, Status.CANCELLED)
    job = replace(job, losses=job.losses + 1)
    return _to(job, Status.FAILED) if job.losses == MAX_ATTEMPTS else _queued_again(job)


def _lose(job: Job, action: Action) -> tuple[Job, Answer]:
    if job.status not in LEASED or job.attempt != action.attempt:
        return job, None
    return _lost(job), _lost(job).status


def _lose_by_name(job: Job, action: Action) -> tuple[Job, Answer]:
    if job.owner != action.worker:
        return job, None
    return _lost(job), _lost(job).status


def _cancel(job: Job, _: Action) -> tuple[Job, Answer]:
    match job.status:
        case None:
            return job, "missing"
        case Status.QUEUED:
            return _to(job, Status.CANCELLED), Status.CANCELLED
        case Status.RUNNING:
            return _to(job, Status.CANCELLING), Status.CANCELLING
        case Status.SUCCEEDED | Status.FAILED:
            return job, "refused"
    return job, job.status


def _cancel_keeping(job: Job, action: Action) -> tuple[Job, Answer]:
    if job.status == Status.CANCELLED and not job.has_student:
        return job, "refused"
    return _cancel(replace(job, keeps=True) if job.is_live else job, action)


def _resume(job: Job, _: Action) -> tuple[Job, Answer]:
    if job.status is None:
        return job, "missing"
    if job.status not in {Status.FAILED, Status.CANCELLED} or job.has_student:
        return job, "refused"
    return replace(_to(job, Status.QUEUED), losses=0, sent_ago=0, keeps=False), Status.QUEUED


def _delete(job: Job, _: Action) -> tuple[Job, Answer]:
    if job.status is None:
        return job, "missing"
    if job.status not in TERMINAL:
        return job, "refused"
    return replace(job, status=None), None


ONE_JOB: dict[Do, Callable[[Job, Action], tuple[Job, Answer]]] = {
    Do.CLAIM: _claim,
    Do.BEAT: _by_holder(_beat),
    Do.TELL: _by_holder(_tell),
    Do.SAVE: _by_holder(_save),
    Do.PUBLISH: _by_holder(lambda job: _to(job, Status.SUCCEEDED)),
    Do.FAIL: _by_holder(lambda job: _to(job, Status.FAILED)),
    Do.STOP_CANCELLED: _by_holder(lambda job: _to(job, Status.CANCELLED)),
    Do.STOP_TIMEOUT: _by_holder(lambda job: _to(job, Status.FAILED)),
    Do.GIVE_BACK: _by_holder(_give_back),
    Do.LOSE: _lose,
    Do.LOSE_BY_NAME: _lose_by_name,
    Do.CANCEL: _cancel,
    Do.CANCEL_KEEPING: _cancel_keeping,
    Do.RESUME: _resume,
    Do.DELETE: _delete,
}


def _end_lease(job: Job, action: Action) -> Job:
    return replace(job, lease_left=-1) if job.owner == action.worker else job


def _reap(job: Job, _: Action) -> Job:
    return _lost(job) if job.lease_is_over else job


def _dispatch(job: Job, _: Action) -> Job:
    due = job.sent_ago is None or job.sent_ago > SEND_AGAIN_SECONDS
    return replace(job, sent_ago=0) if job.status == Status.QUEUED and due else job


EVERY_JOB: dict[Do, Callable[[Job, Action], Job]] = {
    Do.END_LEASES: _end_lease,
    Do.REAP: _reap,
    Do.DISPATCH: _dispatch,
}
