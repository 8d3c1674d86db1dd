"""Lists: keyset pages, read one after the other as the caller goes on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from app.client.objects import ApiObject
from app.client.transport import Transport

Item = TypeVar("Item", bound=ApiObject)


class Page(ApiObject, Generic[Item]):
    """One page of a list."""

    data: Sequence[Item] = ()
    has_more: bool = False
    first_id: str | int | None = None
    last_id: str | int | None = None


def every(
    transport: Transport, kind: type[Item], path: str, parameters: Mapping[str, Any], page_size: int
) -> Iterator[Item]:
    """All objects of a list; the next page is asked for when the last one is used up."""
    query = {key: value for key, value in parameters.items() if value is not None} | {"limit": page_size}
    page_kind = Page[kind]  # type: ignore[valid-type]
    while True:
        page = transport.fetch(page_kind, "GET", path, params=query)
        yield from page.data
        if not page.has_more or page.last_id is None:
            return
        query["after"] = page.last_id
