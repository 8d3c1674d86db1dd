"""Names of what a training leaves on its way: `step-200` is a checkpoint, `main` the student at its end.

`stu-…@step-200` names a checkpoint like a revision of the student, also before there is a student.
"""

import re

from app.domain.identifiers import Prefix, has_prefix, student_of

MAIN = "main"
HUB_NAMESPACE = "students/"
"""Students are called `students/stu-…` where the service is a Hugging Face Hub."""
_STEP = re.compile(r"step-([1-9]\d{0,8})")


def revision_of(step: int) -> str:
    """The name of the checkpoint after that many steps. Without `/`: it is one part of a URL's path."""
    return f"step-{step}"


def step_of(revision: str) -> int | None:
    """The other way round; None when it is no name of a checkpoint."""
    match = _STEP.fullmatch(revision)
    return int(match[1]) if match else None


def own_id(reference: str) -> str:
    """The id in a reference to a model of this service: without the Hub's namespace, and without `@main`."""
    return reference.removeprefix(HUB_NAMESPACE).removesuffix(f"@{MAIN}")


def checkpoint_id(amalgamation_id: str, step: int) -> str:
    """`stu-…@step-200`, as a request names it as a teacher."""
    return f"{student_of(amalgamation_id)}@{revision_of(step)}"


def amalgamation_of(student_id: str) -> str:
    """The id of the job that makes, or made, this student."""
    return f"{Prefix.AMALGAMATION}-{student_id.removeprefix(f'{Prefix.STUDENT}-')}"


def parse_checkpoint(reference: str) -> tuple[str, int] | None:
    """Job and step of `stu-…@step-200`; None when it is something else."""
    student_id, _, revision = reference.partition("@")
    step = step_of(revision)
    if step is None or not has_prefix(student_id, Prefix.STUDENT):
        return None
    return amalgamation_of(student_id), step
