"""Places in a body, as RFC 6901 writes them."""

from app.api.pointers import faults_of, pointer_of


def test_slashes_and_tildes_in_names_are_escaped() -> None:
    assert pointer_of(["a/b", "c~d", 0]) == "/a~1b/c~0d/0"


def test_names_of_branches_and_keys_are_not_places() -> None:
    assert pointer_of(["corpus", "<texts>", "texts", 3]) == "/corpus/texts/3"
    assert pointer_of(["metadata", "too long", "[key]"]) == "/metadata/too long"


def test_the_whole_body_is_the_empty_pointer() -> None:
    assert pointer_of([]) == ""


def test_what_cannot_be_written_as_unicode_is_escaped() -> None:
    pointer_of(["\ud800"]).encode()


def test_parameters_are_named_by_kind_and_name() -> None:
    (fault,) = faults_of([{"type": "missing", "loc": ("query", "limit"), "msg": "Field required"}])
    assert (fault.pointer, fault.code) == ("query limit", "missing")
