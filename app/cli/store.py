"""What commands ask for before they serve files of a bucket."""

from typing import TYPE_CHECKING

from app.cli.messages import give_up

if TYPE_CHECKING:
    from app.settings import Settings


def require_bucket(settings: "Settings") -> None:
    """Give up unless the bucket, if the settings name one, can be written, listed and read."""
    from app.storage import StoreError, configured_store

    if settings.store_url is None:
        return
    try:
        configured_store(settings).check()
    except StoreError as error:
        give_up(f"{settings.store_url}: {error}", status=1)
