import pytest
import yaml
from huggingface_hub import ModelCard

from worker.muka.methods import METHODS
from worker.muka.model_card import model_card, write_model_card

REPORT = {
    "name": "support-router",
    "labels": ["refund", "flight"],
    "teachers": [
        {"name": "acme/bank", "architecture": "BertForSequenceClassification", "labels": ["refund", None]},
        {"name": "travel|x", "revision": "3f2c", "labels": ["flight"]},
    ],
    "method": {"name": "muka", "mc_samples": 16},
    "corpus": {"texts": 200},
    "choice": {"chosen_share": [0.7512, 0.2488]},
    "agreement": {"top1": 0.987, "mean_kl": 0.1},
    "orphans": {"texts": 5, "share": 0.025, "certainty_below": 0.5},
    "predicted_labels": {"refund": 200, "flight": 0},
    "evaluation": {
        "texts": 40,
        "unknown_labels": ["weather"],
        "student": {
            "accuracy": 0.91234,
            "macro_f1": 0.9,
            "calibration_error": 0.05,
            "per_label": [{"label": "refund", "support": 30, "precision": 0.75, "recall": 1.0, "f1": 0.857}],
            "confusion": [
                {"gold": "refund", "predicted": "refund", "texts": 30},
                {"gold": "flight", "predicted": "refund", "texts": 10},
            ],
        },
        "ensemble": {"accuracy": 0.8, "macro_f1": 0.7},
        "teachers": [{"accuracy": 0.5, "macro_f1": 0.4}, {"accuracy": 0.45, "macro_f1": 0.3}],
    },
}


def _header(card: str) -> dict:
    return yaml.safe_load(card.removeprefix("---\n").split("\n---\n")[0])


def test_its_header_is_what_the_hub_reads():
    header = _header(model_card(REPORT))
    assert header["library_name"] == "transformers"
    assert header["pipeline_tag"] == "text-classification"
    assert "knowledge-amalgamation" in header["tags"]
    assert "license" not in header
    assert not {"base_model", "model-index"} & _header(model_card({})).keys()


def test_its_header_holds_bases_and_figures_as_the_hub_s_own_library_reads_them():
    card = ModelCard(model_card({**REPORT, "base_model": ["acme/bank"], "evaluation_corpus": "cor-1"}))
    assert card.data.base_model == ["acme/bank"]
    assert card.data.model_name == "support-router"
    figures = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert figures == {"accuracy": 0.91234, "f1": 0.9, "expected_calibration_error": 0.05}
    assert {(each.task_type, each.dataset_type) for each in card.data.eval_results} == {
        ("text-classification", "cor-1")
    }


def test_a_known_licence_is_named():
    assert _header(model_card({**REPORT, "license": "apache-2.0"}))["license"] == "apache-2.0"


def test_it_tells_teachers_labels_recipe_and_figures():
    card = model_card(REPORT)
    for words in ("support-router", "refund, flight", "acme/bank", "3f2c", "| mc\\_samples | 16 |", "0.9123"):
        assert words in card
    assert "travel\\|x" in card
    assert "| acme/bank | BertForSequenceClassification |  | 1 (1 dropped) |  | 75.1% of the texts |" in card


@pytest.mark.parametrize("name", METHODS)
def test_it_names_the_method_that_made_it_and_its_source(name):
    card = model_card({**REPORT, "method": {"name": name}})
    assert f"by\nmuka's method `{name}` ({METHODS[name].source})" in card


def test_who_was_not_chosen_is_not_called_chosen():
    assert "| chosen for |" in model_card(REPORT)
    card = model_card({**REPORT, "choice": {"chosen_share": [0.75, 0.25], "decides": False}})
    assert "| most certain on |" in card
    assert "chosen for" not in card


def test_it_tells_where_the_student_started():
    card = model_card({**REPORT, "student": {"init_from": "the encoder of a/b", "layers": 3}})
    assert "The student started from the encoder of a/b, of which the first 3 layers were kept." in card
    assert "layers" not in model_card({**REPORT, "student": {"init_from": "a/b", "layers": None}})


def test_its_results_have_a_row_for_everyone_who_could_have_answered():
    card = model_card(REPORT)
    assert "| this student | 0.9123 | 0.9 | 0.05 |" in card
    assert "| all teachers, by certainty | 0.8 | 0.7 |  |" in card
    assert "| teacher acme/bank | 0.5 | 0.4 |  |" in card
    assert "| on 40 held-out texts | accuracy | macro-F1 | calibration error |\n|---|---|---|---|\n" in card


def test_its_results_tell_how_good_everyone_is_on_the_labels_of_each_teacher():
    student = {"accuracy": 0.9, "accuracy_by_teacher": [0.95, None]}
    evaluation = {"texts": 40, "student": student, "corpus": {"id": "cor-1", "content_sha256": "ab12"}}
    card = model_card({**REPORT, "evaluation": evaluation})
    assert "| accuracy on the labels of acme/bank | accuracy on the labels of travel\\|x |" in card
    assert "| this student | 0.9 |  |  | 0.95 |  |" in card
    assert "The held-out texts are those of cor-1 (SHA-256 `ab12`)." in card


def test_it_tells_each_label_and_what_is_taken_for_what():
    card = model_card(REPORT)
    assert "| refund | 30 | 0.75 | 1 | 0.857 |" in card
    assert "| flight | refund | 10 |" in card
    assert "| refund | refund | 30 |" not in card


def test_its_pictures_are_png_with_the_svg_beside():
    picture = {"title": "Margin", "caption": "Texts.", "png": "plots/margin.png", "svg": "plots/margin.svg"}
    card = model_card({**REPORT, "pictures": [picture]})
    assert "![Margin](plots/margin.png)\n\nTexts. ([SVG](plots/margin.svg))" in card
    assert "Pictures" not in model_card(REPORT)


def test_its_limits_are_those_of_this_job():
    card = model_card(REPORT)
    assert "It cannot answer weather" in card
    assert "It agrees with what it was taught on 98.7% of the corpus" in card
    assert "On 2.5% of the corpus (5 texts) no teacher's certainty by entropy reached 0.5" in card
    assert "It gave no text of its corpus the label flight" in card
    assert "was not measured" not in card
    assert "It was not measured on labelled texts" in model_card({})


def test_a_teacher_that_could_not_be_sampled_is_named_where_sampling_was_wanted():
    teachers = [{"name": "a", "sampled": True}, {"name": "b", "sampled": False}]
    sentence = "No dropout layer could be sampled of b: there the single pass was scored."
    for method, told in (
        ({"name": "muka", "mc_samples": 4, "score": "entropy"}, True),
        ({"name": "muka", "mc_samples": 0, "score": "entropy"}, False),
        ({"name": "muka", "mc_samples": 4, "score": "energy"}, False),
        ({"name": "consensus"}, False),
    ):
        assert (sentence in model_card({"teachers": teachers, "method": method})) == told


def test_numbers_are_written_for_people():
    card = model_card({"training": {"seconds": 12345.6, "learning_rate": 2e-05, "steps": 123456}})
    for row in ("| seconds | 12,346 |", "| learning\\_rate | 2e-05 |", "| steps | 123456 |"):
        assert row in card


def test_it_tells_how_to_repeat_a_job_that_has_a_recipe():
    assert "Repeat it" not in model_card(REPORT)
    assert "/amalgamations" in model_card({**REPORT, "recipe": {"corpus": "cor-1"}})


def test_names_cannot_break_out_of_header_or_tables():
    nasty = "x\n---\nlicense: mit\n|<script>"
    card = model_card({"name": nasty, "labels": [nasty], "teachers": [{"name": nasty}], "language": nasty})
    assert "license" not in _header(card)
    before, _, after = card.split("\n---\n", 1)[1].split("```")
    prose = before + after
    assert prose.count("<script") == prose.count("\\<script") > 0
    assert card.count("\n---\n") == 1


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("R&amp;D", r"R\&amp;D"),
        ("~~gone~~", r"\~\~gone\~\~"),
        ("costs $5", r"costs \$5"),
        ("- a list", r"\- a list"),
        ("12. of it", r"12\. of it"),
        ("e-mail 2.0", "e-mail 2.0"),
    ],
)
def test_a_label_is_shown_as_it_is_spelt(name, written):
    assert f"## Labels (1)\n\n{written}\n" in model_card({"labels": [name]})


def test_an_empty_report_makes_a_card_too(tmp_path):
    assert write_model_card(tmp_path, {}).read_text().startswith("---\nlibrary_name")
