"""Checkpoints of a run: written in the background, believed only after their checksums agree, never half.

    <directory>/<step>/          one saved step, see `step_files`
    <directory>/damaged-<step>/  a step that failed its checksums, set aside when an older one took its place

A step is written as `unfinished-<step>`, read back, and renamed: a kill leaves at most that, and the next run that
saves removes it.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain.core.trees import leaf_digests, named_leaves
from jaxtrain.errors import StorageError, Words, one_of
from jaxtrain.storage.checkpoint_files import Damage, Leaves, flush, read_record, read_step, write_record, write_step
from jaxtrain.storage.files import make_directory, storage_error


class Restored(NamedTuple):
    """A state as it was saved (NumPy arrays in the target's structure) and what the run remembered with it."""

    step: int
    state: Any
    memory: dict[str, Any]


_Found = tuple[int, Leaves, dict[str, Any]]


class Checkpoints:
    """The steps saved in one directory by one writer; see the module for the layout."""

    def __init__(self, directory: Path, *, keep: int, say: Callable[[str], None]) -> None:
        """Touches no file. `keep`: how many of the newest steps stay; `say` gets lines, also from the saving thread."""
        self.directory = directory.absolute()
        self._keep = keep
        self.say = say
        self._thread = ThreadPoolExecutor(1, "jaxtrain-checkpoints")
        self._in_flight: Future[None] | None = None
        self._swept = False

    def save(self, step: int, state: Any, memory: dict[str, Any], *, protect: int | None = None) -> None:
        """Copies `state` to the host now and writes it in the background, after the save before has ended.

        `memory` is JSON; `protect` a step that stays beside the newest. A step that is there already is written again
        only as far as it differs. StorageError, in one line, when the save before this one failed.
        """
        memory = json.loads(json.dumps(memory))  # the caller goes on changing its own
        self.wait()
        self._in_flight = self._thread.submit(self._write, step, _host_copy(state), memory, protect)

    def wait(self) -> None:
        """Returns when nothing is in flight; StorageError, once, when the last save failed."""
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            in_flight.result()

    def close(self) -> None:
        """Waits for what is in flight, whatever comes of it: nothing may be written once the directory is let go."""
        with contextlib.suppress(Exception):
            self.wait()
        self._thread.shutdown()

    def steps(self) -> list[int]:
        """The committed steps in ascending order; a listing of the directory, nothing more."""
        return sorted(self._places())

    def exist(self) -> bool:
        """Tells whether anything was ever saved, damaged steps included; a listing of the directory, nothing more."""
        return bool(self._places()) or any(name.startswith("damaged-") for name in self._names())

    def newest_memory(self) -> dict[str, Any] | None:
        """What the newest readable step remembers, without reading its arrays; None where there is none."""
        for _, place in sorted(self._places().items(), reverse=True):
            with contextlib.suppress(Damage):
                return read_record(place).memory
        return None

    def restore(self, target: Any, step: int | None = None, *, set_aside: bool = True) -> Restored | None:
        """Reads the newest good step, or the given one, into the structure of `target`; None when none was ever saved.

        target: a pytree of arrays or `jax.ShapeDtypeStruct`. UsageError naming the first leaf that differs when the
        saved state has another structure, shape or dtype; StorageError when no step (or not the given one) is good.
        """
        found = self._newest_good(step, target, set_aside=set_aside)
        if found is None:
            return None
        step, leaves, memory = found
        paths = [path for path, _ in named_leaves(target)]
        return Restored(step, jax.tree.unflatten(jax.tree.structure(target), [leaves[path] for path in paths]), memory)

    def restore_leaves(self, step: int | None = None) -> tuple[Leaves, dict[str, Any]]:
        """Reads the newest good step, or the given one, as {path: array}, and its memory; changes no file."""
        found = self._newest_good(step, None, set_aside=False)
        if found is None:
            hint = "Give a run that has saved one"
            raise StorageError(str(self.directory), Words("no checkpoint"), "at least one", hint)
        return found[1:]

    # Writing, all of it in the one background thread.

    def _write(self, step: int, state: Leaves, memory: dict[str, Any], protect: int | None) -> None:
        unfinished = self.directory / f"unfinished-{step}"
        try:
            make_directory(self.directory)
            self._sweep()
            if self._commit(step, unfinished, state, memory):
                self.say(f"saved step {step}")
            self._prune(step, protect)
        except StorageError:
            raise
        except Exception as error:
            raise storage_error(self.directory / str(step), "written", error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _sweep(self) -> None:
        """Clears away, once, what a killed process left."""
        if self._swept:
            return
        for step, place in self._places().items():
            if place.name.startswith("replaced-"):
                place.rename(self.directory / str(step))
        for name in os.listdir(self.directory):
            if name.startswith(("unfinished-", "replaced-")):
                shutil.rmtree(self.directory / name)
        self._swept = True

    def _commit(self, step: int, unfinished: Path, state: Leaves, memory: dict[str, Any]) -> bool:
        """Writes what is new in this step; False when it is there already as it is."""
        final, table = self.directory / str(step), leaf_digests(state)
        with contextlib.suppress(Damage):
            saved = read_record(final)
            if saved.leaves == table:
                if saved.memory == memory:
                    return False
                write_record(final, saved._replace(memory=memory))
                return True
        write_step(unfinished, state, table, memory)
        replaced = self.directory / f"replaced-{step}"
        if final.exists():
            final.rename(replaced)
        unfinished.rename(final)
        flush(self.directory)
        shutil.rmtree(replaced, ignore_errors=True)
        return True

    def _prune(self, step: int, protect: int | None) -> None:
        kept = {step, protect, *self.steps()[-self._keep :]}
        for old in self.steps():
            if old not in kept:
                # Renamed first: a step that is half deleted must not look like one that is damaged.
                doomed = self.directory / f"unfinished-{old}"
                (self.directory / str(old)).rename(doomed)
                shutil.rmtree(doomed)

    # Reading.

    def _places(self) -> dict[int, Path]:
        """Where each committed step lies: as `replaced-<step>` when a kill fell between the two renames of a swap."""
        names = self._names()
        places = {}
        for name in names:
            match = re.fullmatch(r"(replaced-)?(\d+)", name)
            if match and not (match[1] and match[2] in names) and (self.directory / name).is_dir():
                places[int(match[2])] = self.directory / name
        return places

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.directory))
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise storage_error(self.directory, "read", error) from error

    def _newest_good(self, step: int | None, target: Any, *, set_aside: bool) -> _Found | None:
        self.wait()
        places = self._places()
        if step is not None and step not in places:
            expected = one_of(map(str, sorted(places))) or "a directory with saved steps"
            raise StorageError(str(self.directory), Words(f"no step {step}"), expected)
        damages: dict[int, str] = {}
        for candidate in [step] if step is not None else sorted(places, reverse=True):
            try:
                leaves, memory = read_step(places[candidate], target)
            except Damage as damage:
                damages[candidate] = str(damage)
                continue
            for bad, why in damages.items():
                self._report(bad, why, places[bad], candidate, set_aside)
            return candidate, leaves, memory
        if not damages and not any(name.startswith("damaged-") for name in self._names()):
            return None
        raise self._nothing_good(damages)

    def _report(self, step: int, why: str, place: Path, used: int, set_aside: bool) -> None:
        """Says that a step is damaged, and moves it out of the way of the steps to come."""
        if not place.exists():  # pruned by the run that owns the directory while it was being read
            return
        aside = ""
        if set_aside:
            try:
                aside = f", set aside as {_set_aside(place, step).name}"
            except OSError as error:
                aside = f", could not be set aside ({os.strerror(error.errno or 0)})"
        self.say(f"step {step} is damaged ({why}){aside}; using step {used}")

    def _nothing_good(self, damages: dict[int, str]) -> StorageError:
        reasons = ", ".join(f"step {step}: {why}" for step, why in list(damages.items())[:3])
        got = Words(f"damaged checkpoints alone ({reasons or 'all set aside'})")
        hint = "Restore one from a copy, or give another --workdir to start afresh"
        return StorageError(str(self.directory), got, "one that passes its checksums", hint)


def _host_copy(state: Any) -> Leaves:
    """Copies every leaf into memory of its own: on a CPU `np.asarray` shows the buffer that the next call donates."""
    leaves = dict(named_leaves(state))
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {path: np.array(leaf, copy=True) for path, leaf in leaves.items()}


def _set_aside(place: Path, step: int) -> Path:
    aside, number = place.with_name(f"damaged-{step}"), 1
    while aside.exists():
        number += 1
        aside = place.with_name(f"damaged-{step}-{number}")
    return place.rename(aside)
