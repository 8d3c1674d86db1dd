"""`muka serve`."""

import importlib.util
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.messages import give_up, usable_settings
from app.cli.schema import require_schema, require_store
from app.cli.store import require_bucket

if TYPE_CHECKING:
    from app.settings import Settings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on [default: MUKA_HOST or loopback].")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any free port [default: MUKA_PORT or 8000].")
    ] = None,
    worker: Annotated[bool, typer.Option(help="Bring a worker along (without MUKA_BROKER_URL).")] = True,
    reuse_port: Annotated[
        bool,
        typer.Option(
            "--reuse-port", help="Share the port with others that say so: on Linux each has its share of it."
        ),
    ] = False,
) -> None:
    """Run the service: with everything it needs, unless MUKA_BROKER_URL names a broker of its own."""
    settings = _settings(host, port)
    if not settings.is_loopback and not _somebody_has_a_key(settings):
        give_up(
            f"refusing to listen on {settings.host} without a key: anybody who reaches this machine "
            "could use the service. Make one with `muka keys create --owner NAME`, or set MUKA_API_KEY to a "
            "long random value, or leave out --host"
        )
    try:
        with ExitStack() as stack:
            _serve(settings, worker, reuse_port, stack)
    except KeyboardInterrupt:
        typer.echo("muka has stopped")


def _settings(host: str | None, port: int | None) -> "Settings":
    settings = usable_settings()
    chosen = {"host": host, "port": port}
    return settings.model_copy(update={name: value for name, value in chosen.items() if value is not None})


def _somebody_has_a_key(settings: "Settings") -> bool:
    from app.persistence.database import Database
    from app.services import keys

    if settings.api_key is not None:
        return True
    if _is_without_tables(settings.resolved_database_url()):
        return False
    require_schema(settings)
    database = Database(settings.resolved_database_url())
    try:
        return keys.is_any_valid(database)
    finally:
        database.close()


def _is_without_tables(url: str) -> bool:
    """Makes none, nor a file for them: a refusal leaves nothing behind."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import OperationalError

    from app.persistence import schema_state

    if url.startswith("sqlite") and not Path(make_url(url).database or "").exists():
        return True
    try:
        return schema_state.state(url).current is None
    except OperationalError as error:
        give_up(f"the database does not answer: {error.orig}", status=1)


def _serve(settings: "Settings", with_worker: bool, reuse_port: bool, stack: ExitStack) -> None:
    from app.cli.http_server import listening_socket, run_http_server, sigterm_is_ctrl_c

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s serve %(levelname)s %(message)s")
    sigterm_is_ctrl_c()
    if reuse_port and settings.is_embedded:
        give_up(
            "--reuse-port is for API processes that share everything else: set MUKA_DATABASE_URL and "
            "MUKA_BROKER_URL"
        )
    listening = stack.enter_context(listening_socket(settings.host, settings.port, is_shared=reuse_port))
    require_bucket(settings)
    embedded = settings.is_embedded
    if embedded:
        settings = _bring_engine(settings, with_worker, stack)
    else:
        require_schema(settings)
        require_store(settings)
    _say(settings, embedded, with_worker)
    run_http_server(settings, listening)


def _bring_engine(settings: "Settings", with_worker: bool, stack: ExitStack) -> "Settings":
    from app.embedded.broker import BrokerNotStartedError
    from app.embedded.data_lock import DataFolderInUseError, exclusive
    from app.embedded.supervisor import embedded_engine

    if with_worker and importlib.util.find_spec("torch") is None:
        give_up("the worker needs torch: pip install 'muka[worker]', or serve without one (--no-worker)")
    try:
        stack.enter_context(exclusive(settings.data_dir.resolve()))
        require_schema(settings)
        require_store(settings)
        return stack.enter_context(embedded_engine(settings, with_worker=with_worker))
    except (DataFolderInUseError, BrokerNotStartedError, FileNotFoundError) as error:
        give_up(str(error), status=1)


def _say(settings: "Settings", embedded: bool, with_worker: bool) -> None:
    from sqlalchemy import make_url

    database = make_url(settings.resolved_database_url()).render_as_string()
    worker = "one, embedded" if embedded and with_worker else "start `muka worker` with the same settings"
    typer.echo(f"  data      {settings.data_dir.resolve()}")
    typer.echo(f"  database  {database}")
    typer.echo(f"  store     {settings.store_url or settings.resolved_store_dir()}")
    typer.echo(
        f"  broker    {'embedded' if embedded and with_worker else _without_password(settings.broker_url)}"
    )
    typer.echo(f"  worker    {worker}")


def _without_password(url: str | None) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url or "")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
