"""Signs of life of a study's workers: each shows its own, and judges the others by its own clock alone."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from jaxtrain.search.shared.database import Database

if TYPE_CHECKING:
    from optuna.study import Study

BEATS = 12  # that a worker must miss to be taken for dead


class Workers:
    """This worker, by a name that no other life of a worker had, and what it saw of the others."""

    def __init__(self, database: Database, study: "Study", stale_seconds: float) -> None:
        """Shows nothing yet, and has seen nobody, so all are alive."""
        self.own = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._database, self._study, self._stale_seconds = database, study, stale_seconds
        self._seen: dict[str, tuple[str | None, float]] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="jaxtrain-heartbeat", daemon=True)

    def sign_on(self) -> None:
        """Shows a sign of life, and goes on to do so every few seconds until `stop`."""
        self._show("0")
        self._thread.start()

    def stop(self) -> None:
        """Shows no more signs of life."""
        self._leaving.set()
        self._thread.join()

    def sign_off(self) -> None:
        """Tells the others not to wait for a sign of life; after `stop`."""
        self._show(None)

    def is_gone(self, worker: str | None, place: str, shown: Mapping[str, Any]) -> bool:
        """Whether a worker signed off, or has shown no new sign of life for long, by what is `shown` now.

        One that died before it gave its name, None, is known by a place, and gone once that was seen for long.
        """
        if worker is None:
            return self._is_stale(place, None)
        sign = shown.get(_key(worker))
        return sign is None or self._is_stale(worker, sign)

    def _is_stale(self, name: str, sign: str | None) -> bool:
        now = time.monotonic()
        last, since = self._seen.setdefault(name, (sign, now))
        if last != sign:
            self._seen[name] = (sign, now)
            return False
        return now - since >= self._stale_seconds

    def _beat(self) -> None:
        for number in count(1):
            if self._leaving.wait(self._stale_seconds / BEATS):
                return
            self._database.once(lambda number=number: self._show(str(number)))

    def _show(self, sign: str | None) -> None:
        self._study.set_user_attr(_key(self.own), sign)


def _key(worker: str) -> str:
    return f"worker:{worker}"
