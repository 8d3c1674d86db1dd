"""One row a text of the corpus: who was chosen as its teacher, and the answer.

That is the student's; where the method trains none, that of the teachers together.
"""

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from worker.muka import LabelSpace, TeacherChoice, orphans
from worker.muka.columns import spans

TEXT_TABLE = "texts.parquet"


def write_text_table(
    folder: Path, space: LabelSpace, choice: TeacherChoice, entropy: Tensor, predictions: Tensor
) -> Path:
    """Write `texts.parquet`; the texts themselves stay in the corpus, where the API reads them.

    Columns: `row` (place in the corpus, from 0), `chosen_teacher`, `weights`, `certainty` and `entropy`
    (a number for each teacher), `margin`, `label` and `probability` of the answer, `orphan`.

    Args:
        folder: where to.
        space: the union of labels L.
        choice: for the n texts of the corpus.
        entropy: of each teacher's answer in nats [n, N].
        predictions: the answers' probabilities [n, |L|].
    """
    path = folder / TEXT_TABLE
    with contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for span in spans(len(predictions)):
            part = TeacherChoice(choice.u[span], choice.w[span], choice.m[span])
            table = _table(span.start, space, part, entropy[span], predictions[span])
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
            writer.write_table(table)
    return path


def _table(
    first: int, space: LabelSpace, choice: TeacherChoice, entropy: Tensor, predictions: Tensor
) -> pa.Table:
    names = pa.array(space.labels, pa.string())
    probability, guess = predictions.max(-1)
    columns = {
        "row": pa.array(torch.arange(first, first + len(predictions)).numpy()),
        "chosen_teacher": pa.array(choice.w.argmax(-1).short().numpy()),
        "weights": _lists(choice.w),
        "certainty": _lists(choice.u),
        "entropy": _lists(entropy),
        "margin": pa.array(choice.m.float().numpy()),
        "label": names.take(pa.array(guess.int().numpy())),
        "probability": pa.array(probability.float().numpy()),
        "orphan": pa.array(orphans(space, entropy).numpy()),
    }
    return pa.table(columns)


def _lists(rows: Tensor) -> pa.Array:
    """[n, N] as n lists of N numbers."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.float().flatten().numpy()), rows.shape[-1])
