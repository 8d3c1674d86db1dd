"""What can go wrong in an amalgamation, as exceptions without HTTP, rows or queues in them.

MukaLibraryError
├── TeacherNotFoundError        the folder lacks files that a model needs
├── TeacherUnsafeFormatError    weights only as pickles
├── TeacherNotClassifierError   not a single-label sequence classifier with a trained head
├── StudentNotUsableError       a checkpoint from which no student can start
├── LabelConflictError          label names that mean nothing, or too few of them
├── CorpusEmptyError            nothing to learn from
├── OutOfMemoryError_           not even one text fits
└── DivergedError               a loss that is no number
StoppedError                    not a failure: the caller's `should_stop` said so
"""

from typing import ClassVar


class MukaLibraryError(Exception):
    """A failure that the user of the library can understand and act upon.

    Attributes:
        code: The failure code of the job, one of a closed list.
        hint: What to do next, in one sentence; may be empty.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TeacherNotFoundError(MukaLibraryError):
    """The folder of a model does not exist or lacks files."""

    code = "teacher_not_found"


class TeacherUnsafeFormatError(MukaLibraryError):
    """The weights are stored only in a format that runs code when it is read."""

    code = "teacher_unsafe_format"


class TeacherNotClassifierError(MukaLibraryError):
    """The model is not a single-label sequence classifier with a trained head."""

    code = "teacher_not_classifier"


class StudentNotUsableError(MukaLibraryError):
    """No student can start from this checkpoint, or not with so many layers."""

    code = "teacher_not_classifier"


class LabelConflictError(MukaLibraryError):
    """Label names are placeholders, unknown to the teacher, or too few."""

    code = "label_conflict"


class CorpusEmptyError(MukaLibraryError):
    """There is no text to learn from."""

    code = "corpus_empty"


class OutOfMemoryError_(MukaLibraryError):  # noqa: N801, N818 - the name without underscore is torch's
    """Not even a single text fits into memory."""

    code = "out_of_memory"


class DivergedError(MukaLibraryError):
    """The loss or its gradient is not a finite number any more."""

    code = "diverged"


class StoppedError(Exception):
    """The caller's `should_stop` answered True; neither a failure nor a result."""


def is_panic(error: BaseException) -> bool:
    """Whether code in Rust has given up: no `Exception`, and its class can be imported from nowhere."""
    return type(error).__name__ == "PanicException"
