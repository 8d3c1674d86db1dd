"""The table of all texts of a corpus."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from worker.muka import LabelSpace, TeacherChoice
from worker.text_table import write_text_table

CHOICE = TeacherChoice(
    u=torch.tensor([[0.9, 0.2], [0.3, 0.4]]),
    w=torch.tensor([[0.8, 0.2], [0.25, 0.75]]),
    m=torch.tensor([0.7, 0.1]),
)
ENTROPY = torch.tensor([[0.07, 0.55], [0.49, 0.42]])
SPACE = LabelSpace.union([["refund", "flight"], ["flight", "refund"]])


def test_it_has_a_row_a_text_and_no_text(tmp_path: Path) -> None:
    path = write_text_table(tmp_path, SPACE, CHOICE, ENTROPY, torch.tensor([[0.6, 0.4], [0.1, 0.9]]))
    first, second = pq.read_table(path).to_pylist()
    assert first == {
        "row": 0,
        "chosen_teacher": 0,
        "weights": pytest.approx([0.8, 0.2]),
        "certainty": pytest.approx([0.9, 0.2]),
        "entropy": pytest.approx([0.07, 0.55]),
        "margin": pytest.approx(0.7),
        "label": "refund",
        "probability": pytest.approx(0.6),
        "orphan": False,
    }
    assert (second["row"], second["chosen_teacher"], second["label"], second["orphan"]) == (
        1,
        1,
        "flight",
        True,
    )
