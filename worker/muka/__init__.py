"""MUKA as a library: one student from several fine-tuned classifiers, without labelled data.

    from worker.muka import amalgamate

    student = amalgamate(["path/to/teacher-a", "path/to/teacher-b"], texts, output_dir="student")

Names are imported when they are first used, so that importing this package costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.muka.adaptive import score_shard_adaptively
    from worker.muka.amalgamate import amalgamate, score_corpus
    from worker.muka.checkpoint import Checkpoint
    from worker.muka.distil import DistilReport, StepReport, distil
    from worker.muka.errors import (
        CorpusEmptyError,
        DivergedError,
        LabelConflictError,
        MukaLibraryError,
        OutOfMemoryError_,
        StoppedError,
        StudentNotUsableError,
        TeacherNotClassifierError,
        TeacherNotFoundError,
        TeacherUnsafeFormatError,
    )
    from worker.muka.evaluate import (
        agreement,
        calibration_error,
        choice_statistics,
        evaluate,
        orphans,
        predictive_entropy,
    )
    from worker.muka.fine_tune import fine_tune
    from worker.muka.label_space import LabelSpace, teacher_labels
    from worker.muka.methods import (
        Evidence,
        Method,
        Muka,
        Need,
        Supervision,
        TeacherChoice,
        get_method,
    )
    from worker.muka.methods.ensemble import Ensemble
    from worker.muka.model_card import model_card, write_model_card
    from worker.muka.recipe import Sampling, Training
    from worker.muka.scoring import SHARD_SIZE, TeacherOutputs, score_shard
    from worker.muka.student import Student, create_student
    from worker.muka.teacher import Teacher

_HOMES = {
    "adaptive": ("score_shard_adaptively",),
    "amalgamate": ("amalgamate", "score_corpus"),
    "checkpoint": ("Checkpoint",),
    "distil": ("DistilReport", "StepReport", "distil"),
    "errors": (
        "CorpusEmptyError",
        "DivergedError",
        "LabelConflictError",
        "MukaLibraryError",
        "OutOfMemoryError_",
        "StoppedError",
        "StudentNotUsableError",
        "TeacherNotClassifierError",
        "TeacherNotFoundError",
        "TeacherUnsafeFormatError",
    ),
    "evaluate": (
        "agreement",
        "calibration_error",
        "choice_statistics",
        "evaluate",
        "orphans",
        "predictive_entropy",
    ),
    "fine_tune": ("fine_tune",),
    "label_space": ("LabelSpace", "teacher_labels"),
    "methods": ("Evidence", "Method", "Muka", "Need", "Supervision", "TeacherChoice", "get_method"),
    "methods.ensemble": ("Ensemble",),
    "model_card": ("model_card", "write_model_card"),
    "recipe": ("Sampling", "Training"),
    "scoring": ("SHARD_SIZE", "TeacherOutputs", "score_shard"),
    "student": ("Student", "create_student"),
    "teacher": ("Teacher",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SHARD_SIZE",
    "Checkpoint",
    "CorpusEmptyError",
    "DistilReport",
    "DivergedError",
    "Ensemble",
    "Evidence",
    "LabelConflictError",
    "LabelSpace",
    "Method",
    "Muka",
    "MukaLibraryError",
    "Need",
    "OutOfMemoryError_",
    "Sampling",
    "StepReport",
    "StoppedError",
    "Student",
    "StudentNotUsableError",
    "Supervision",
    "Teacher",
    "TeacherChoice",
    "TeacherNotClassifierError",
    "TeacherNotFoundError",
    "TeacherOutputs",
    "TeacherUnsafeFormatError",
    "Training",
    "agreement",
    "amalgamate",
    "calibration_error",
    "choice_statistics",
    "create_student",
    "distil",
    "evaluate",
    "fine_tune",
    "get_method",
    "model_card",
    "orphans",
    "predictive_entropy",
    "score_corpus",
    "score_shard",
    "score_shard_adaptively",
    "teacher_labels",
    "write_model_card",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


class _PublicSurface(ModuleType):
    """The package's own type: importing its submodule `distil` does not hide its function `distil`."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _PublicSurface
