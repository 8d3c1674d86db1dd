from pathlib import Path
from typing import Any

import pytest

from app.cli.submission import merged, pairs, read_recipe, uploaded, with_labels
from app.client import InputError, MukaClient
from tests.unit.app.client.scripted_server import Reply, running

COR = "cor-" + "0" * 32
MDL = "mdl-" + "0" * 32


class TestMerged:
    def test_options_win_field_by_field(self) -> None:
        recipe = {"training": {"epochs": 3, "seed": 1}, "name": "old"}
        given: dict[str, Any] = {"training": {"epochs": 5, "seed": None}, "name": "new", "corpus": None}
        assert merged(recipe, given) == {"training": {"epochs": 5, "seed": 1}, "name": "new"}

    def test_what_nobody_gave_is_left_to_the_service(self) -> None:
        assert merged({}, {"student": {"layers": None}, "teachers": [], "name": None}) == {}

    def test_zero_is_a_value(self) -> None:
        assert merged({}, {"method": {"name": "muka", "mc_samples": 0}}) == {
            "method": {"name": "muka", "mc_samples": 0}
        }


class TestWithLabels:
    def test_teachers_are_named_by_number_or_name(self) -> None:
        mapped = with_labels(["a/b@main", "c/d"], ["0:LABEL_0=refund", "c/d:x:y=z=1"], ["1:other"])
        assert mapped == [
            {"model": "a/b@main", "labels": {"LABEL_0": "refund"}},
            {"model": "c/d", "labels": {"x:y": "z=1", "other": None}},
        ]

    def test_mappings_of_a_recipe_are_kept(self) -> None:
        recipe = [{"model": "a/b", "labels": {"x": "y"}}, "c/d"]
        assert with_labels(recipe, ["0:u=v"], []) == [
            {"model": "a/b", "labels": {"x": "y", "u": "v"}},
            "c/d",
        ]

    @pytest.mark.parametrize("rename", ["0:old", "0:old=", "7:old=new", "old=new", "0:=new"])
    def test_what_it_cannot_place_it_refuses(self, rename: str) -> None:
        with pytest.raises(InputError, match="TEACHER"):
            with_labels(["a/b", "c/d"], [rename], [])


class TestPairs:
    def test_values_may_hold_equals_signs(self) -> None:
        assert pairs(["team=support", "q=a=b", "empty="], "--metadata") == {
            "team": "support",
            "q": "a=b",
            "empty": "",
        }

    @pytest.mark.parametrize("text", ["team", "=x", ""])
    def test_no_pair_is_refused(self, text: str) -> None:
        with pytest.raises(InputError, match="--metadata takes KEY=VALUE"):
            pairs([text], "--metadata")


class TestReadRecipe:
    @pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
    def test_what_is_no_json_object_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "recipe.json"
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(InputError, match=r"recipe\.json"):
            read_recipe(path)


class TestUploaded:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"teachers": ["./missing", MDL], "corpus": COR}, "no folder or archive ./missing"),
            ({"teachers": ["missing.zip", MDL], "corpus": COR}, "no folder or archive missing.zip"),
            ({"teachers": [MDL, MDL], "corpus": "missing.txt"}, "neither a corpus id"),
            ({"teachers": [MDL], "corpus": COR, "evaluation": {"corpus": "no"}}, "neither a corpus id"),
        ],
    )
    def test_what_is_neither_id_nor_file_is_told(self, body: dict[str, Any], message: str) -> None:
        notes: list[str] = []
        with MukaClient() as client, pytest.raises(InputError, match=message):
            uploaded(client, body, {}, notes.append)

    def test_ids_hub_names_and_other_corpora_go_through(self) -> None:
        body = {
            "teachers": ["org/name@v1", {"model": MDL, "labels": {"a": None}}],
            "corpus": {"texts": ["x"]},
        }
        notes: list[str] = []
        with MukaClient() as client:
            assert uploaded(client, body, {}, notes.append) == body

    def test_local_files_are_uploaded_on_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "t.zip").write_bytes(b"PK")
        (tmp_path / "inbox.txt").write_text("hello")
        notes: list[str] = []
        with running() as server, MukaClient(server.url) as client:
            server.on("POST", "/models", Reply.of({"id": MDL}, 201))
            server.on("POST", "/corpora", Reply.of({"id": COR}, 201))
            body = {"teachers": [str(tmp_path / "t.zip"), "org/name"], "corpus": str(tmp_path / "inbox.txt")}
            ready = uploaded(client, body, {"text_column": "body"}, notes.append)
        assert ready == {"teachers": [MDL, "org/name"], "corpus": COR}
        assert len(notes) == 2
