"""The database of a shared study: its address, a lock shared by all workers, and retries during short outages."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaxtrain.errors import ConfigError, StorageError, Words
from jaxtrain.files import demand_ordinary, open_locked, remove
from jaxtrain.search.optuna_samplers import require_search_extra

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

T = TypeVar("T")

RETRY_SECONDS = 8.0
"""Seconds of retries while the database is unreachable during a search."""

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
_DRIVER = "postgresql+psycopg"
_EXPECTED = "postgresql://USER@HOST/NAME, or sqlite:///FILE for the workers of one machine"

# The client gives up on a server that does not answer within 10 s, even if its name has two addresses. The server
# notices a worker that lost its power within half a minute, and then gives the lock to the next.
_CONNECT: dict[str, dict[str, Any]] = {
    _DRIVER: {
        "connect_timeout": 4,
        "tcp_user_timeout": 10_000,
        "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
    },
    "sqlite": {"timeout": 20.0},
}


class Database:
    """A database and Optuna's storage in it, whose tables are made if they are missing.

    A worker holds no connection between two calls, so that hundreds of workers do not exhaust the server's connections.
    """

    def __init__(self, url: str) -> None:
        """Connects; raises ConfigError for an invalid address, StorageError for an unreachable database."""
        with require_search_extra("search.storage", Words("an address")):
            import psycopg as _  # noqa: F401
            import sqlalchemy
            import sqlalchemy.exc
            from optuna.exceptions import StorageInternalError
            from optuna.storages import RDBStorage
        self._url = _parse(url)
        self._failures = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)
        address = self._url.render_as_string(hide_password=False)
        options = {"connect_args": _CONNECT[self._url.drivername]}
        # The lock uses its own connections: the server releases it when the connection ends, even if the worker dies.
        self._locks = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, **options)
        try:
            with self.lock("tables"):
                self.storage = RDBStorage(address, engine_kwargs=options)
        except self._failures as error:
            raise self._out_of_reach(error) from None
        except RuntimeError as error:  # tables of another version: Optuna says which command mends that
            got = Words(f"tables of another version ({error})")
            expected = "those of the Optuna that is installed"
            raise StorageError(f"search.storage={self}", got, expected, "Upgrade the tables, or the package") from None

    def __str__(self) -> str:
        """Returns the address without password and options."""
        return self._url.set(drivername=self._url.get_backend_name(), query={}).render_as_string()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Holds a lock that one worker has at a time; it is also released when the worker dies."""
        held = self._advisory_lock(name) if self._url.drivername == _DRIVER else _file_lock(str(self._url.database))
        with held:
            yield

    def retry(self, action: Callable[[], T]) -> T:
        """Retries an idempotent action for RETRY_SECONDS while the database is unreachable, then StorageError."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                return action()
            except self._failures as error:
                if time.monotonic() > deadline:
                    raise self._out_of_reach(error) from None
                time.sleep(0.5)
            finally:
                self.storage.engine.dispose()

    def try_once(self, action: Callable[[], object]) -> None:
        """Runs a best-effort action; database errors are ignored."""
        with contextlib.suppress(*self._failures):
            action()
        self.storage.engine.dispose()

    @contextlib.contextmanager
    def _advisory_lock(self, name: str) -> Iterator[None]:
        import sqlalchemy

        key = int.from_bytes(hashlib.sha256(f"jaxtrain {name}".encode()).digest()[:8], "big", signed=True)
        with self._locks.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield

    def _out_of_reach(self, error: BaseException) -> StorageError:
        """Builds the error with the database's own message, without the SQL statement and its values."""
        cause = error.__cause__ or error
        words = " ".join(str(getattr(cause, "orig", None) or cause).split())[:300]
        got, hint = (
            Words(f"the error {words!r}"),
            "Check the database, then run the same command again: nothing is lost",
        )
        return StorageError(f"search.storage={self}", got, "a database that answers", hint)


def _parse(url: str) -> "URL":
    """Parses an address; error messages show no part of it that may hold a password."""
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    scheme = url.partition("://")[0]
    try:
        url.encode()  # raises for what is no text, such as a byte of a path that is no UTF-8
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("search.storage", Words("an address that cannot be read"), _EXPECTED) from None
    if scheme in _POSTGRESQL:
        return parsed.set(drivername=_DRIVER)
    if scheme != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ConfigError("search.storage", f"{scheme}://...", _EXPECTED)
    return parsed


@contextlib.contextmanager
def _file_lock(database: str) -> Iterator[None]:
    """Locks FILE.lock beside a database, which is removed afterwards."""
    demand_ordinary(Path(database))  # SQLite would wait for the other end of a pipe
    path = Path(f"{database}.lock")
    file, _ = open_locked(path)
    with file:
        try:
            yield
        finally:
            remove(path)
