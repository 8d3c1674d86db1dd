from worker.muka import errors


def test_every_failure_has_a_code_of_the_closed_list():
    codes = {
        "teacher_not_classifier",
        "teacher_unsafe_format",
        "teacher_not_found",
        "label_conflict",
        "corpus_empty",
        "out_of_memory",
        "diverged",
        "internal",
    }
    kinds = errors.MukaLibraryError.__subclasses__()
    assert {kind.code for kind in [errors.MukaLibraryError, *kinds]} == codes


def test_a_failure_tells_what_to_do_next():
    error = errors.LabelConflictError("two labels", hint="Map them.")
    assert (str(error), error.hint) == ("two labels", "Map them.")


def test_being_stopped_is_no_failure():
    assert not issubclass(errors.StoppedError, errors.MukaLibraryError)
    assert not hasattr(errors.StoppedError, "code")
