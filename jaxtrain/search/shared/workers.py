"""Heartbeats of a study's workers: each shows its own, and judges the others only by its own clock."""

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

BEATS = 12  # missed heartbeats after which a worker is taken to be dead


class Workers:
    """This worker's heartbeat, under a name that is unique to the process, and those that it saw of other workers."""

    def __init__(self, database: Database, study: "Study", stale_seconds: float) -> None:
        """Shows no heartbeat yet; every other worker counts as alive until it was silent for `stale_seconds`."""
        self.own = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._database = database
        self._study = study
        self._stale_seconds = stale_seconds
        self._seen: dict[str, tuple[str | None, float]] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="jaxtrain-heartbeat", daemon=True)

    def sign_on(self) -> None:
        """Shows a heartbeat now, and then every few seconds until `stop`."""
        self._show("0")
        self._thread.start()

    def stop(self) -> None:
        """Stops the heartbeat."""
        self._leaving.set()
        self._thread.join()

    def sign_off(self) -> None:
        """Tells the others that this worker is gone; to be called after `stop`."""
        self._show(None)

    def is_gone(self, worker: str | None, place: str, attributes: Mapping[str, Any]) -> bool:
        """Tells whether a worker signed off, or has shown no new heartbeat for `stale_seconds`.

        A worker without a name (None) died before it gave one. It is identified by `place`, its trial or task, and
        treated as dead `stale_seconds` after that was first seen. attributes: the current attributes of the study.
        """
        if worker is None:
            return self._is_stale(place, None)
        sign = attributes.get(_key(worker))
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
            self._database.try_once(lambda number=number: self._show(str(number)))

    def _show(self, sign: str | None) -> None:
        self._study.set_user_attr(_key(self.own), sign)


def _key(worker: str) -> str:
    return f"worker:{worker}"
