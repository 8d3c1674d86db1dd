import yaml

from worker.muka.model_card import model_card, write_model_card

REPORT = {
    "name": "support-router",
    "labels": ["refund", "flight"],
    "teachers": [
        {"name": "acme/bank", "architecture": "BertForSequenceClassification", "labels": ["refund", None]},
        {"name": "travel|x", "revision": "3f2c", "labels": ["flight"]},
    ],
    "method": {"name": "muka", "mc_samples": 16},
    "evaluation": {"accuracy": 0.91234, "per_label": [1, 2]},
}


def _header(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_its_header_is_what_the_hub_reads():
    header = _header(model_card(REPORT))
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "text-classification"
    assert "knowledge-amalgamation" in header["tags"]
    assert "license" not in header


def test_a_known_licence_is_named():
    assert _header(model_card({**REPORT, "license": "apache-2.0"}))["license"] == "apache-2.0"


def test_it_tells_teachers_labels_recipe_and_figures():
    card = model_card(REPORT)
    for words in ("support-router", "refund, flight", "acme/bank", "3f2c", "| mc\\_samples | 16 |", "0.9123"):
        assert words in card
    assert "travel\\|x" in card
    assert "per_label" not in card


def test_names_cannot_break_out_of_header_or_tables():
    nasty = "x\n---\nlicense: mit\n|<script>"
    card = model_card({"name": nasty, "labels": [nasty], "teachers": [{"name": nasty}], "language": nasty})
    assert "license" not in _header(card)
    before, _, after = card.split("\n---\n", 1)[1].split("```")
    prose = before + after
    assert prose.count("<script") == prose.count("\\<script") > 0
    assert card.count("\n---\n") == 1


def test_an_empty_report_makes_a_card_too(tmp_path):
    assert write_model_card(tmp_path, {}).read_text().startswith("---\nlibrary_name")
