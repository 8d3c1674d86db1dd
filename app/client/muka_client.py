"""`MukaClient`: one service, its resources as attributes."""

from types import TracebackType
from typing import Self

from app.client.amalgamations import Amalgamations
from app.client.corpora import Corpora
from app.client.models import Models
from app.client.students import Students
from app.client.transport import Transport
from app.client.webhooks import Webhooks

DEFAULT_URL = "http://127.0.0.1:8000"


class MukaClient:
    """A client of one muka service.

    >>> with MukaClient() as client:  # doctest: +SKIP
    ...     corpus = client.corpora.upload("inbox.jsonl")
    ...     teachers = [client.models.upload("billing/"), "acme/shipping-intents"]
    ...     job = client.amalgamations.create(teachers=teachers, corpus=corpus).wait()
    ...     client.students.download(job.student().id, "router/")

    Args:
        base_url: of the service.
        api_key: sent as `Authorization: Bearer …`.
        timeout: seconds until a silent connection counts as broken.
        retries: further tries of a request that may be sent twice, when the connection breaks or the
            service is busy (429, 502, 503).
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 3,
    ) -> None:
        self._transport = Transport(base_url, api_key, timeout, retries)
        self.corpora = Corpora(self._transport)
        self.models = Models(self._transport)
        self.amalgamations = Amalgamations(self._transport)
        self.students = Students(self._transport)
        self.webhooks = Webhooks(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """Where the service is."""
        return self._transport.base_url

    def close(self) -> None:
        """Return the connections."""
        self._transport.close()
