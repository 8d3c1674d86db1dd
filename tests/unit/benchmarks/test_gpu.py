import json
import sys

import torch

from benchmarks import gpu
from benchmarks._gpu_models import agnews_texts


def test_it_runs_through_on_any_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "OUT", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = ["gpu", "--tiny", "--texts", "60", "--variant-seconds", "0.01", "--budgets", "2048"]
    monkeypatch.setattr(sys, "argv", options)
    gpu.main()
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["token_budget"] for row in result["scoring"]] == [2048, 2048]
    assert not any("failed" in row for row in result["scoring"] + result["training"])
    assert all(row["tokens_per_second"] > 0 for row in result["scoring"] + result["training"])
    assert "random" in result["weights"]
    assert result["whole_job"]["texts"] >= 60


def test_texts_are_made_up_where_there_are_none_and_that_is_told(tmp_path):
    texts, source = agnews_texts(tmp_path, 50)
    assert len(texts) == 50
    assert 25 < sum(len(text.split()) for text in texts) / 50 < 50
    assert "made-up" in source
