"""The lines of the quality benchmark: what teachers, corpus and test are made of."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks._quality_encoders import make_encoder
from benchmarks._quality_lines import ALL_LINES, Line
from benchmarks.quality import found_strangers, lost_classes
from demo.encoder import minilm


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A CLINC150 in small: the three domains, four intents each, forty texts an intent."""
    domains = {"banking": "bank", "travel": "trip", "kitchen_and_dining": "cook"}
    intents = {f"{short}-{i}": domain for domain, short in domains.items() for i in range(4)}
    folder = tmp_path / "clinc150"
    folder.mkdir()
    (folder / "intent_to_domain.json").write_text(json.dumps(intents))
    _write(folder / "train.parquet", [(f"{intent} {n}", intent) for intent in intents for n in range(40)])
    _write(
        folder / "test.parquet", [(f"test of {intent} {n}", intent) for intent in intents for n in range(5)]
    )
    for part in ("oos_train", "oos_valid"):
        _write(folder / f"{part}.parquet", [(f"{part} {n}", "oos") for n in range(100)])
    return tmp_path


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [y for _, y in rows]}), path)


def _line(ending: str) -> Line:
    return next(line for line in ALL_LINES if line.name == f"clinc150, 3 teachers{ending}")


def test_no_text_is_in_two_parts_and_every_label_belongs_to_the_teacher_that_knows_it(data):
    line = _line("")
    split, teams = line.split(data, seed=1), line.teams(data)
    parts = [{row.text for row in part} for part in (split.labelled, split.corpus, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 12 * 45
    assert all(row.label in teams[row.owner] for row in (*split.labelled, *split.corpus, *split.test))


def test_another_seed_cuts_the_texts_in_another_way(data):
    one, same, other = (_line("").split(data, seed) for seed in (1, 1, 2))
    assert one == same
    assert {row.text for row in one.labelled} != {row.text for row in other.labelled}


def test_a_rare_class_is_thinned_in_the_corpus_alone(data):
    split = _line(" (rare)").split(data, seed=1)
    count = lambda part: sum(row.label == "bank-0" for row in part)  # noqa: E731
    assert (count(split.labelled), count(split.corpus), count(split.test)) == (20, 5, 5)


def test_strangers_belong_to_no_teacher_and_stay_out_of_the_test(data):
    split = _line(" (strangers)").split(data, seed=1)
    assert sum(row.owner == -1 for row in split.corpus) == 200
    assert all(row.owner >= 0 for row in (*split.labelled, *split.test))


def test_teachers_that_share_labels_share_the_labelled_texts_and_one_has_names_of_its_own(data):
    line = next(line for line in ALL_LINES if line.name.startswith("setting: overlapping"))
    split, teams = line.split(data, seed=1), line.teams(data)
    assert [len(team) for team in teams] == [4 + 4] * 3, "of the next domain as many as there are, at most 5"
    assert all(row.label in teams[row.owner] for row in (*split.labelled, *split.corpus, *split.test))
    owners = [row.owner for row in split.labelled if row.label == "bank-0"]
    assert (owners.count(0), owners.count(2), len(owners)) == (10, 10, 20)
    assert [line.own_name(i, "bank-0") for i in range(3)] == ["bank-0", "bank-0 by another name", "bank-0"]


@pytest.mark.parametrize("kind", ["electra", "roberta"])
def test_minilm_in_another_architecture_says_the_same(kind, tmp_path):
    texts = ["book a flight", "how long do i boil eggs, please?"]
    says = []
    for folder in (minilm(), make_encoder(kind, minilm(), tmp_path / kind, seed=1)):
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            says.append(model(**batch).last_hidden_state[batch["attention_mask"].bool()])
    assert model.config.model_type == kind
    torch.testing.assert_close(*says, atol=1e-5, rtol=1e-5)


def test_texts_of_a_label_that_no_teacher_knows_are_strangers(data):
    line = replace(
        _line(" (missing label)"), strangers=7, missing="bank-0", teams=lambda _: [["trip-0"], ["cook-0"]]
    )
    split = line.split(data, seed=1)
    assert [row.label for row in split.corpus if row.owner == -1] == ["bank-0"] * 7
    assert {row.label for row in (*split.labelled, *split.test)} == {"trip-0", "cook-0"}


def test_strangers_that_are_orphans_are_counted_over_the_runs():
    runs = [
        {"teachers": {"orphans": {"strangers": 20, "found": found, "others": 100, "false": 1}}}
        for found in (7, 9)
    ]
    assert found_strangers({"line": runs, "without": [{"teachers": {}}]}) == [
        "line: 16 of 40 texts that no teacher knows are orphans, and 2 of the 200 others"
    ]


def test_data_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        _line("").split(tmp_path, seed=1)


def test_what_consensus_has_lost_is_told_together_with_what_muka_knows_of_it():
    run = {
        "consensus": {"recall": {"a": 0.0, "b": 0.0, "c": 0.9}},
        "muka": {"recall": {"a": 0.0, "b": 0.25, "c": 0.0}},
    }
    alone = {"consensus": {"recall": {"a": 0.0}}}
    assert lost_classes({"line": [run], "only consensus": [alone]}) == [
        "line: a is gone with consensus; muka finds 0% of its texts",
        "line: b is gone with consensus; muka finds 25% of its texts",
    ]
