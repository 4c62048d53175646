"""The database of a shared study: its address, a lock that all workers share, and patience with short outages."""

import contextlib
import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaxtrain.errors import ConfigError, StorageError, Words
from jaxtrain.search.optuna_samplers import search_extra
from jaxtrain.storage.files import storage_error

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

T = TypeVar("T")

RETRY_SECONDS = 8.0
"""How long a database may be away in the midst of a search."""

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
_DRIVER = "postgresql+psycopg"
_EXPECTED = "postgresql://USER@HOST/NAME, or sqlite:///FILE for the workers of one machine"

# A server that does not answer is given up within 10 s, though a name may stand for two addresses. One whose worker
# lost its power learns of it within half a minute, and then gives the lock to the next.
_CONNECT: dict[str, dict[str, Any]] = {
    _DRIVER: {
        "connect_timeout": 4,
        "tcp_user_timeout": 10_000,
        "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
    },
    "sqlite": {"timeout": 20.0},
}


class Database:
    """A database and Optuna's storage in it, whose tables are made where they are missing.

    Between two of its calls a worker holds no connection, so that hundreds do not use up the server's.
    """

    def __init__(self, url: str) -> None:
        """Connects; ConfigError for an address that cannot be used, StorageError for a database out of reach."""
        with search_extra("search.storage", Words("an address")):
            import psycopg as _  # noqa: F401
            import sqlalchemy
            import sqlalchemy.exc
            from optuna.exceptions import StorageInternalError
            from optuna.storages import RDBStorage
        self._url = _parsed(url)
        self._failures = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)
        address = self._url.render_as_string(hide_password=False)
        options = {"connect_args": _CONNECT[self._url.drivername]}
        # The lock has connections of its own: the server frees it with the connection, whatever becomes of the worker.
        self._locks = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, **options)
        try:
            with self.lock("tables"):
                self.storage = RDBStorage(address, engine_kwargs=options)
        except self._failures as error:
            raise self._out_of_reach(error) from None
        except RuntimeError as error:  # tables of another version: Optuna says which command mends that
            got, expected = Words(f"tables of another version ({error})"), "those of the Optuna that is installed"
            raise StorageError(f"search.storage={self}", got, expected, "Upgrade the tables, or the package") from None

    def __str__(self) -> str:
        """Returns the address without what may be secret."""
        return self._url.set(drivername=self._url.get_backend_name(), query={}).render_as_string()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Holds a lock that one worker has at a time; it is freed with the worker, too."""
        held = self._advisory_lock(name) if self._url.drivername == _DRIVER else _file_lock(str(self._url.database))
        with held:
            yield

    def persistently(self, action: Callable[[], T]) -> T:
        """Does what can be done twice, again and again while the database is away; then StorageError."""
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

    def once(self, action: Callable[[], object]) -> None:
        """Does what may as well be left undone while the database is away."""
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
        """Builds the line: the database's own words, without the statement and its values."""
        cause = error.__cause__ or error
        words = " ".join(str(getattr(cause, "orig", None) or cause).split())[:300]
        got, hint = (
            Words(f"the error {words!r}"),
            "Check the database, then run the same command again: nothing is lost",
        )
        return StorageError(f"search.storage={self}", got, "a database that answers", hint)


def _parsed(url: str) -> "URL":
    """Reads an address; neither it nor a part that may hold a password is shown."""
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    scheme = url.partition("://")[0]
    try:
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
    path = Path(f"{database}.lock")
    try:
        file = path.open("w")
    except OSError as error:
        raise storage_error(path, "written", error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise storage_error(path, "locked", error) from error
        yield
