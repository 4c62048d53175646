"""A PostgreSQL server for one test: started as a user without privileges, on a free port, stopped with the test."""

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from optional_parts import postgres_program
from psycopg import sql

OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": "127.0.0.1"}


class PostgresServer:
    """A server with an empty cluster in a folder; `url` is the address of its database."""

    def __init__(self, folder: Path) -> None:
        """Makes the cluster; the server is started by `start`."""
        self._folder, self._log, self._user = folder, folder / "log", _unprivileged_user()
        if self._user:
            os.chown(folder, *self._user)
        self._port = _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        cluster = ["initdb", "-D", folder / "cluster", "-U", "worker", "-A", "trust", "-E", "UTF8", "--no-sync"]
        assert self._popen([*cluster, "--locale=C"]).wait(timeout=120) == 0, self._log.read_text()
        self.url = f"postgresql://worker:secret@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = {**OPTIONS, "port": str(self._port), "unix_socket_directories": ""}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._server = self._popen(["postgres", "-D", self._folder / "cluster", *settings])
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._server.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends the server, and the connections to it, at once."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            self._server.wait(timeout=60)
            self._server = None

    def new_database(self, name: str) -> str:
        """Makes an empty database and returns its address."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url.replace("/postgres", f"/{name}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _popen(self, command: list[Any]) -> "subprocess.Popen[bytes]":
        program = postgres_program(command[0])
        assert program is not None
        user, group = self._user or (None, None)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [program, *command[1:]],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                group=group,
                extra_groups=[] if self._user else None,
            )


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Starts a server and ends it; a test that calls this needs "database"."""
    # Not pytest's folder: its parents are closed to other users.
    with tempfile.TemporaryDirectory(prefix="jaxtrain-postgres-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _unprivileged_user() -> tuple[int, int] | None:
    """Returns user and group to run as in root's place, whom PostgreSQL refuses; None for any other user."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return entry.pw_uid, entry.pw_gid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
