"""A job in a process whose memory is limited as soon as its teachers are asked; prints what became of it.

    python -m tests.memory_limit FOLDER MEBIBYTES WORDS

Its teachers are small but wide: a text of so many words needs far more memory than they do.
"""

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from app.persistence import migrate
from app.persistence.database import Database
from app.settings import Settings
from app.storage import open_store
from tests.bench import LABELS, Bench
from tests.jobs import add_corpus, add_teacher, job_of
from tests.tiny_models import make_teacher
from worker.muka.memory import TokenBudget


def main(folder: Path, mebibytes: int, words: int) -> dict[str, Any]:
    """Run the job; the answer is for the test."""
    torch.set_num_threads(1)
    url = f"sqlite:///{folder / 'muka.db'}"
    migrate.upgrade(url)
    database, store = Database(url), open_store(folder / "store")
    folders = [_wide_teacher(folder / str(i), labels, words) for i, labels in enumerate(LABELS)]
    teachers = [add_teacher(store, path, labels) for path, labels in zip(folders, LABELS, strict=True)]
    texts = [" ".join(["travel", str(number), *["money"] * words]) for number in range(8)]
    settings = Settings(data_dir=folder, checkpoint_seconds=0, max_attempts=1)
    bench = Bench(settings, database, store, teachers, add_corpus(database, store, texts))
    _limit_at_the_first_batch(mebibytes << 20)
    job_id = bench.job(training={"epochs": 1, "max_length": words}, method={"name": "muka", "mc_samples": 1})
    bench.run(job_id)
    job = job_of(database, job_id)
    return {"status": job.status, "failure": job.failure, "left_over": list(store.unfinished())}


def _limit_at_the_first_batch(spare_bytes: int) -> None:
    """From then on there is no more than so much."""
    texts = TokenBudget.texts

    def limiting(budget: TokenBudget, longest: int) -> int:
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + spare_bytes,) * 2)
        return texts(budget, longest)

    TokenBudget.texts = limiting  # type: ignore[method-assign]


def _wide_teacher(folder: Path, labels: Sequence[str], words: int) -> Path:
    make_teacher(folder, labels)
    config = transformers.BertConfig.from_pretrained(folder)
    config.intermediate_size, config.max_position_embeddings, config.num_hidden_layers = 4096, words, 1
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": words}))
    return folder


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
