"""Every error that a run can raise is a failure of the closed list, with a hint."""

import errno
import inspect

import pytest
import torch
from safetensors import SafetensorError

from app.domain.recipe import RecipeNotKnownError
from app.domain.status import RETRYABLE, FailureCode
from app.storage import StoreError
from worker.corpus import CorpusUnreadableError
from worker.failures import FAILURES, failure_of
from worker.muka import errors as library
from worker.teachers import ModelGatedError, ModelGoneError

LIBRARY_ERRORS = [
    error
    for _, error in inspect.getmembers(library, inspect.isclass)
    if issubclass(error, library.MukaLibraryError) and error is not library.MukaLibraryError
]


@pytest.mark.parametrize("error", LIBRARY_ERRORS)
def test_no_library_error_is_left_out(error: type[library.MukaLibraryError]) -> None:
    code, hint = FAILURES[error]
    assert code == error.code
    assert hint


def test_only_stopping_is_no_failure() -> None:
    exceptions = [e for _, e in inspect.getmembers(library, inspect.isclass) if issubclass(e, Exception)]
    assert set(exceptions) - set(LIBRARY_ERRORS) == {library.MukaLibraryError, library.StoppedError}


@pytest.mark.parametrize(
    "error", [ModelGoneError, ModelGatedError, CorpusUnreadableError, RecipeNotKnownError]
)
def test_no_error_of_the_worker_is_left_out(error: type[Exception]) -> None:
    assert failure_of(error("why")).message == "why"


def test_the_error_s_own_hint_is_better_than_the_table_s() -> None:
    assert failure_of(library.DivergedError("nan", hint="own")).hint == "own"
    assert failure_of(library.DivergedError("nan")).hint == FAILURES[library.DivergedError][1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/secret/path"), FailureCode.STORAGE_ERROR),
        (StoreError("the artifact store cannot be written"), FailureCode.STORAGE_ERROR),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            FailureCode.STORAGE_ERROR,
        ),
        (Exception("No space left on device (os error 28)"), FailureCode.STORAGE_ERROR),  # of tokenizers
        (SafetensorError("I/O error: No such file /secret/path (os error 2)"), FailureCode.INTERNAL),
        (MemoryError(), FailureCode.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("could not create a primitive"), FailureCode.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            FailureCode.OUT_OF_MEMORY,
        ),
        (RuntimeError("unable to mmap 7 bytes: Cannot allocate memory (12)"), FailureCode.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("/secret/path exploded"), FailureCode.INTERNAL),
        (FileNotFoundError(errno.ENOENT, "No such file", "/secret/path"), FailureCode.INTERNAL),
        (KeyError("x"), FailureCode.INTERNAL),
    ],
)
def test_other_errors_have_a_code_and_tell_no_path(error: Exception, code: FailureCode) -> None:
    failure = failure_of(error)
    assert failure.code == code
    assert failure.message
    assert failure.hint
    assert "/secret" not in failure.message


def test_a_message_that_quotes_a_file_of_strangers_can_be_stored() -> None:
    told = failure_of(library.TeacherNotFoundError("version '\0\ud800'" + 9_000 * "x")).message
    assert told.startswith("version '�?'")
    assert len(told) < 1_100


def test_what_may_go_better_next_time_is_retryable() -> None:
    assert failure_of(StoreError("full")).code in RETRYABLE
    assert failure_of(library.DivergedError("nan")).code not in RETRYABLE
