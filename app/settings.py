"""All settings of muka, read from the environment (`MUKA_…`) and nowhere else.

Two libraries read their own: `huggingface_hub` (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE`) and,
where the store is a bucket, `obstore` (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, …).
"""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GIB = 1 << 30
_BUCKET_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/?#]+)*/?")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _separated(value: Any) -> Any:
    """A list as people write it into an environment variable: separated by commas."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _or_none(value: Any) -> Any:
    """A variable that is set to nothing, as Compose files do it, is not set."""
    return value or None


class Settings(BaseSettings):
    """Every setting, with its default for the embedded service on a laptop."""

    model_config = SettingsConfigDict(
        env_prefix="MUKA_", env_parse_none_str="null", extra="ignore", frozen=True
    )

    # Where things live
    data_dir: Path = Path("muka-data")
    """Folder of the embedded database, broker and store."""
    database_url: str | None = None
    """`postgresql://…`; empty: SQLite in `data_dir`."""
    broker_url: str | None = None
    """`redis://…`; empty: an embedded broker that `muka serve` starts."""
    store_dir: Path | None = None
    """Folder of the artifacts, shared by API and workers; empty: `data_dir/store`."""
    store_url: Annotated[str | None, BeforeValidator(_or_none)] = None
    """`s3://bucket/prefix`: the artifacts are in a bucket, and nothing else is shared."""
    store_public_url: Annotated[str | None, BeforeValidator(_or_none)] = None
    """Endpoint of the S3 server as clients reach it, where they do so under another name than we."""
    store_cache_bytes: int = Field(20 * GIB, ge=0)
    """What each machine keeps of a bucket's files on its disk, besides those that are in use."""
    scratch_dir: Path | None = None
    """Folder on a local disk for the working files of a run; empty: `data_dir/scratch`."""

    # Where it listens, and who may talk to it
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_key: SecretStr | None = None
    """A key beside those of `muka keys`: of the owner `default`, with all scopes."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_separated)] = ()
    """Further names of this machine under which it may be reached without a key: `muka.localhost,desk`."""

    # The engine
    lease_seconds: float = Field(90, gt=0)
    """A job whose worker has not renewed its lease for this long goes to another worker."""
    heartbeat_seconds: float = Field(15, gt=0)
    """How often a worker renews its lease, writes its progress and looks for a cancel."""
    caretaker_seconds: float = Field(5, gt=0)
    """How often the API process reaps expired leases and dispatches queued jobs."""
    sweep_seconds: float = Field(3600, gt=0)
    """How often the API process removes what nobody needs any more."""
    sweep_age_seconds: float = Field(86_400, ge=0)
    """Files that no row names are left alone until then: an upload may be about to name them."""
    dispatch_again_seconds: float = Field(60, gt=0)
    """A queued job is sent to the broker again after this long."""
    max_attempts: int = Field(3, ge=1)
    """A job that loses its worker this often has failed as `worker_lost`."""
    checkpoint_seconds: float = Field(60, ge=0)
    """How often the training writes a checkpoint."""
    stall_seconds: float = Field(1800, gt=0)
    """A job that makes no progress for this long has timed out. A download counts when it is complete."""
    store_patience_seconds: float = Field(120, ge=0)
    """A worker whose store fails tries again for this long; a full disk fails the job at once."""
    threads: int | None = Field(None, ge=1)
    """Cores that one run may use; empty: all that the process may run on."""
    share_shards: int | None = Field(4, ge=2)
    """From so many missing shards of teachers' outputs on, idle workers help with a job; `null`: never."""
    share_seconds: float = Field(20, ge=0)
    """Only where what is missing takes one worker this long: a helper needs seconds to start."""
    stop_seconds: float = Field(30, ge=0)
    """How long a worker that is asked to stop may take for its last checkpoint."""
    event_ping_seconds: float = Field(15, gt=0)
    """A stream of events in which nothing happens for this long says so, and proxies keep it open."""
    worker_name: str | None = Field(None, min_length=1, max_length=200)
    """Under which a worker holds its leases; empty: host and process."""
    worker_silence_seconds: float = Field(180, gt=0)
    """An idle worker that does not hear from the broker for this long ends, and is started anew."""
    worker_alive_file: Path | None = None
    """Touched every few seconds by a worker that listens to its queue, for health checks; empty: none."""
    die_with_parent: int | None = None
    """Pid of the process without which this one must not live; set by `muka serve` for its worker."""

    # Predictions
    prediction_timeout_seconds: float = Field(30, gt=0)
    """How long `POST /students/{id}/predictions` waits for a prediction worker, its start included."""
    max_waiting_predictions: int = Field(64, ge=1)
    """Requests that may wait for a prediction worker; more are refused."""
    prediction_models: int = Field(4, ge=1)
    """Students that a prediction worker keeps loaded."""
    prediction_model_bytes: int = Field(2 * GIB, ge=1)
    """Of their files together; a single student may be larger."""
    prediction_idle_seconds: float = Field(600, gt=0)
    """The prediction worker of `muka serve` ends after this long without a request; the next starts it."""

    # Webhooks
    webhook_allowed_networks: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_separated)
    ] = ()
    """Private networks to which webhooks may be sent, also over plain http: `10.0.0.0/8,fd00::/8`."""
    webhook_timeout_seconds: float = Field(15, gt=0, le=300)
    """Of one attempt, from the name to the answer."""
    webhook_retry_seconds: float = Field(28_800, ge=0)
    """How long after its first attempt a delivery is tried again."""
    webhook_log_retention_days: float = Field(30, gt=0)
    """How long the deliveries of a webhook are listed."""

    # Limits
    max_corpus_bytes: int = Field(2 * GIB, ge=1)
    """Of one corpus upload, as sent and decompressed."""
    max_model_bytes: int = Field(10 * GIB, ge=1)
    """Of one model upload, as sent and unpacked."""
    max_body_bytes: int = Field(4 << 20, ge=1)
    """Of every other request."""
    max_texts: int = Field(5_000_000, ge=1)
    """In one corpus."""
    max_text_chars: int = Field(20_000, ge=1)
    """Of one text."""
    max_teachers: int = Field(32, ge=2)
    """In one job."""
    max_queued_jobs: int = Field(1000, ge=1)
    """Of one owner."""
    max_uploads: int = Field(8, ge=1)
    """That an API process reads and checks at once."""
    upload_idle_seconds: float = Field(60, gt=0)
    """An upload of which nothing comes for this long is refused, so that it does not hold its place."""
    upload_min_bytes_per_second: float = Field(10_000, ge=0)
    """So is one that is slower than this for as long; 0: any that moves is let be."""
    scores_max_bytes: int = Field(20 * GIB, ge=0)
    """Of the teachers' stored outputs; the longest unused go first, and never those of a job in progress."""
    corpus_retention_days: float | None = Field(30, gt=0)
    """How long a corpus is kept after its last upload; `null`: until it is deleted."""
    checkpoint_retention_days: float = Field(7, ge=0)
    """How long checkpoints are kept after the end of their job."""

    @model_validator(mode="after")
    def _heartbeat_fits_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"MUKA_HEARTBEAT_SECONDS ({self.heartbeat_seconds}) must be at most half of "
                f"MUKA_LEASE_SECONDS ({self.lease_seconds}), or healthy workers lose their jobs"
            )
        return self

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.store_url is None:
            return self
        if self.store_dir is not None:
            raise ValueError("MUKA_STORE_DIR and MUKA_STORE_URL name two stores: unset one of them")
        if not _BUCKET_URL.fullmatch(self.store_url):
            raise ValueError("MUKA_STORE_URL must be s3://BUCKET or s3://BUCKET/PREFIX")
        return self

    @property
    def is_embedded(self) -> bool:
        """True when `muka serve` brings the broker and the worker along."""
        return self.broker_url is None

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach the service."""
        return self.host in LOOPBACK

    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL."""
        if self.database_url:
            return self.database_url
        return f"sqlite:///{(self.data_dir / 'muka.db').resolve()}"

    def resolved_store_dir(self) -> Path:
        """The store's root folder."""
        return (self.store_dir or self.data_dir / "store").resolve()

    def resolved_scratch_dir(self) -> Path:
        """Where a run puts its working files."""
        return (self.scratch_dir or self.data_dir / "scratch").resolve()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
