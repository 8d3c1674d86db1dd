"""One question to one student: texts in, labels with probabilities out."""

import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from app.domain.prediction import Question
from app.storage import ArtifactStore
from worker.muka import Student
from worker.muka.batching import tokenise


def load_student(store: ArtifactStore, question: Question) -> Student:
    """From the store, onto the GPU if there is one.

    Raises:
        FileNotFoundError, StoreError: Its files are not there.
        MukaLibraryError: They cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with store.borrowed(question.storage_prefix) as folder:
        return Student.load(folder, device=device)


def predict(student: Student, question: Question, on_batch: Callable[[int], None]) -> bytes:
    """The body of the API's answer, `app.api.schemas_predictions.Predictions`.

    Args:
        student: The one that is asked.
        question: Its texts are read up to the length that the model and its tokenizer allow.
        on_batch: Called after each batch; what it raises ends the work.

    Raises:
        OutOfMemoryError_: Not even one text fits.
    """
    most = student.max_length
    probabilities = student.predict(question.texts, max_length=most, on_batch=on_batch)
    truncated = tokenise(student.tokenizer, question.texts, most + 1).lengths > most
    answers = [
        {"label": top[0]["label"], "probability": top[0]["probability"], "top": top, "truncated": cut}
        for top, cut in zip(_ranked(student, probabilities, question.top_k), truncated.tolist(), strict=True)
    ]
    answer = {"student_id": question.student_id, "digest": question.digest, "data": answers}
    return json.dumps(answer, ensure_ascii=False).encode()


def _ranked(
    student: Student, probabilities: Tensor, top_k: int | None
) -> Iterator[list[dict[str, str | float]]]:
    """Of each row of [n, |L|] the k largest; equal ones in the labels' order."""
    ordered = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    labels = student.labels
    values, places = ordered.values[:, :top_k].tolist(), ordered.indices[:, :top_k].tolist()
    for row, columns in zip(values, places, strict=True):
        yield [
            {"label": labels[column], "probability": value}
            for value, column in zip(row, columns, strict=True)
        ]
