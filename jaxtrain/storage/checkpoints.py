"""Checkpoints of a run: written atomically in the background, and verified by checksums when read.

    <directory>/<step>/          one saved step, see `checkpoint_files`
    <directory>/damaged-<step>/  a step that could not be used, renamed when an older one was restored instead
    <directory>/untrusted-<step>/  the same, where there was no older one and the run started again at step 0

A step is written as `unfinished-<step>`, read back, and renamed. A killed process leaves at most that directory, and
the next run that saves removes it.
"""

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain.core.trees import LeafTable, leaf_digests, named_leaves
from jaxtrain.errors import StorageError, Words, one_of
from jaxtrain.files import (
    exists,
    guarded,
    is_directory,
    list_directory,
    make_directory,
    remove,
    remove_tree,
    rename,
    storage_error,
    temporary_of,
)
from jaxtrain.storage.checkpoint_files import (
    MANIFEST,
    Damage,
    Leaves,
    Manifest,
    demand_readable,
    flush,
    read_leaves,
    read_manifest,
    write_manifest,
    write_step,
)


class Untrusted(Damage):
    """Raised for a step whose files are whole, and whose rows are not."""


class Restored(NamedTuple):
    """A saved state (NumPy arrays in the target's structure) and the bookkeeping saved with it."""

    step: int
    state: Any
    memory: dict[str, Any]


_Loaded = tuple[int, Leaves, dict[str, Any]]
"""Step, leaves and memory."""

ReasonAgainst = Callable[[int, dict[str, Any]], str]
"""Returns why a step with its memory cannot be used; "" where it can."""


def no_reason(step: int, memory: dict[str, Any]) -> str:
    """Has nothing against any step."""
    return ""


class Checkpoints:
    """Steps saved in one directory by one writer; the module's docstring shows the layout."""

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        say: Callable[[str], None],
        run: str | None = None,
    ) -> None:
        """Touches no file.

        Args:
            directory: the directory of the steps.
            keep: how many of the newest steps to keep.
            say: prints a line; may be called from the saving thread.
            run: the id of the run that owns the directory; while it is None, steps of any run are accepted.
        """
        with guarded(directory, "read"):
            self.directory = directory.absolute()
        self._keep = keep
        self.say = say
        self.run = run
        self._thread = ThreadPoolExecutor(1, "jaxtrain-checkpoints")
        self._in_flight: Future[None] | None = None
        self._swept = False

    def save(self, step: int, state: Any, memory: dict[str, Any], *, protect: int | None = None) -> None:
        """Copies `state` to the host now, and writes it in the background once the previous save has ended.

        memory: JSON; protect: a step to keep beside the newest. Of a step that is already saved, only what differs is
        written. Raises StorageError, in one line, when the previous save failed.
        """
        memory = json.loads(json.dumps(memory))  # a copy: the caller continues to change its own
        self.wait()
        self._in_flight = self._thread.submit(self._write, step, _host_copy(state), memory, protect)

    def wait(self) -> None:
        """Waits for the pending save; raises StorageError, once, when it failed."""
        in_flight = self._in_flight
        self._in_flight = None
        if in_flight is not None:
            in_flight.result()

    def close(self) -> None:
        """Waits for the pending save and ignores its errors: nothing may be written after the directory is released."""
        with contextlib.suppress(Exception):
            self.wait()
        self._thread.shutdown()

    def steps(self) -> list[int]:
        """Returns the committed steps in ascending order, from a listing of the directory."""
        return sorted(self._places())

    def exist(self) -> bool:
        """Tells whether any step was ever saved, those set aside included, from a listing of the directory."""
        return bool(self._places()) or any(name.startswith(("damaged-", "untrusted-")) for name in self._names())

    def digests(self, step: int) -> LeafTable:
        """Returns the digests of the leaves of a saved step, without reading its arrays.

        Raises StorageError for a step that is missing or damaged.
        """
        try:
            return self._own(step, read_manifest(self._places()[step])).leaves
        except (KeyError, Damage) as error:
            got = Words("nothing" if isinstance(error, KeyError) else str(error))
            raise StorageError(str(self.directory / str(step)), got, "a saved step") from error

    def newest_memory(self) -> dict[str, Any] | None:
        """Returns the memory of the newest readable step without reading its arrays; None if there is none."""
        manifest = self._newest_manifest()
        return manifest and manifest.memory

    def newest_run(self) -> str | None:
        """Returns the id of the run that saved the newest readable step; None if there is none, or it has no id."""
        manifest = self._newest_manifest()
        return manifest and manifest.run

    def _newest_manifest(self) -> Manifest | None:
        for step, place in sorted(self._places().items(), reverse=True):
            with contextlib.suppress(Damage):
                return self._own(step, read_manifest(place))
        return None

    def restore(
        self,
        target: Any,
        step: int | None = None,
        *,
        set_aside: bool = True,
        reason_against: ReasonAgainst = no_reason,
    ) -> Restored | None:
        """Reads the newest valid step, or the given one, into the structure of `target`; None to start at step 0.

        Args:
            target: a pytree of arrays or `jax.ShapeDtypeStruct`.
            step: the step to read; None for the newest valid one.
            set_aside: whether to rename damaged steps.
            reason_against: returns why a step with this memory cannot be used. If it rejects steps, and none is left,
                all are set aside and the run starts at step 0, as it does when none was ever saved.

        Raises:
            UsageError: the saved state has another structure, shape or dtype; it names the first leaf that differs.
            StorageError: no step, or not the given one, is valid.
        """
        loaded = self._newest_valid(step, target, set_aside=set_aside, reason_against=reason_against)
        if loaded is None:
            return None
        step, leaves, memory = loaded
        paths = [path for path, _ in named_leaves(target)]
        return Restored(step, jax.tree.unflatten(jax.tree.structure(target), [leaves[path] for path in paths]), memory)

    def restore_leaves(self, step: int | None = None) -> tuple[Leaves, dict[str, Any]]:
        """Reads the newest valid step, or the given one, as {path: array}, and its memory; changes no file."""
        loaded = self._newest_valid(step, None, set_aside=False)
        if loaded is None:
            hint = "Give a run that has saved one"
            raise StorageError(str(self.directory), Words("no checkpoint"), "at least one", hint)
        return loaded[1:]

    # Writing, in the one background thread.

    def _write(self, step: int, state: Leaves, memory: dict[str, Any], protect: int | None) -> None:
        unfinished = self.directory / f"unfinished-{step}"
        try:
            make_directory(self.directory)
            self._sweep()
            if self._commit(step, unfinished, state, memory):
                self.say(f"saved step {step}")
            self._prune(step, protect)
        except StorageError as error:  # of a file in it
            raise StorageError(str(self.directory / str(step)), error.got, error.expected, error.hint) from error
        except Exception as error:
            raise storage_error(self.directory / str(step), "written", error) from error
        finally:
            remove_tree(unfinished)

    def _sweep(self) -> None:
        """Removes, once, the unfinished steps and files that a killed process left."""
        if self._swept:
            return
        for step, place in self._places().items():
            if place.name.startswith("replaced-"):
                rename(place, self.directory / str(step))
        for name in list_directory(self.directory):
            if name.startswith(("unfinished-", "replaced-")):
                remove_tree(self.directory / name)
        for place in self._places().values():
            remove(temporary_of(place / MANIFEST))
        self._swept = True

    def _commit(self, step: int, unfinished: Path, state: Leaves, memory: dict[str, Any]) -> bool:
        """Writes what is new in this step; False when the same step is already saved."""
        final = self.directory / str(step)
        manifest = Manifest(leaf_digests(state), memory, {}, step, self.run)
        with contextlib.suppress(Damage):
            saved = read_manifest(final)
            if saved._replace(files={}) == manifest:
                return False
            if saved.leaves == manifest.leaves:
                write_manifest(final, manifest._replace(files=saved.files))
                return True
        write_step(unfinished, state, manifest)
        replaced = self.directory / f"replaced-{step}"
        if exists(final):
            rename(final, replaced)
        rename(unfinished, final)
        flush(self.directory)
        remove_tree(replaced)
        return True

    def _prune(self, step: int, protect: int | None) -> None:
        kept = {step, protect, *self.steps()[-self._keep :]}
        for old in self.steps():
            if old not in kept:
                # Renamed first, so that a half deleted step is not taken for a damaged one.
                doomed = self.directory / f"unfinished-{old}"
                rename(self.directory / str(old), doomed)
                remove_tree(doomed)

    # Reading.

    def _places(self) -> dict[int, Path]:
        """Returns step -> directory, `replaced-<step>` if the process was killed between the two renames of a swap."""
        names = self._names()
        places = {}
        for name in names:
            match = re.fullmatch(r"(replaced-)?(\d+)", name)
            if match and not (match[1] and match[2] in names) and is_directory(self.directory / name):
                places[int(match[2])] = self.directory / name
        return places

    def _names(self) -> set[str]:
        return set(list_directory(self.directory))

    def _newest_valid(
        self, step: int | None, target: Any, *, set_aside: bool, reason_against: ReasonAgainst = no_reason
    ) -> _Loaded | None:
        self.wait()
        places = self._places()
        if step is not None and step not in places:
            expected = one_of(map(str, sorted(places))) or "a directory with saved steps"
            raise StorageError(str(self.directory), Words(f"no step {step}"), expected)
        damages: dict[int, Damage] = {}
        for candidate in [step] if step is not None else sorted(places, reverse=True):
            try:
                leaves, memory = self._read(candidate, places[candidate], target, reason_against)
            except Damage as damage:
                damages[candidate] = damage
                continue
            self._report(damages, places, candidate, "damaged" if set_aside else "")
            return candidate, leaves, memory
        if not damages and not any(name.startswith("damaged-") for name in self._names()):
            return None
        if set_aside and step is None and any(isinstance(damage, Untrusted) for damage in damages.values()):
            self._report(damages, places, 0, "untrusted")
            return None
        raise self._nothing_good(damages)

    def _read(
        self, step: int, place: Path, target: Any, reason_against: ReasonAgainst
    ) -> tuple[Leaves, dict[str, Any]]:
        """Reads a step; raises Damage unless it is what its name says, and can be trusted."""
        demand_readable(place)
        manifest = self._own(step, read_manifest(place))
        leaves = read_leaves(place, manifest, target)
        held = int(np.max(leaves["step"])) if "step" in leaves else step  # a run's state holds its step
        if held != step:
            raise Damage(f"its state is that of step {held}")
        if reason := reason_against(step, manifest.memory):
            raise Untrusted(reason)
        return leaves, manifest.memory

    def _own(self, step: int, manifest: Manifest) -> Manifest:
        """Returns a manifest; raises Damage where it is that of another step or run."""
        if manifest.step not in (step, None):
            raise Damage(f"it was saved as step {manifest.step}")
        if self.run is not None and manifest.run not in (self.run, None):
            raise Damage("it belongs to another run")
        return manifest

    def _report(self, damages: Mapping[int, Damage], places: Mapping[int, Path], used: int, set_aside: str) -> None:
        """Reports damaged steps, and renames them to `<set_aside>-<step>`: their names are free for new saves."""
        for step, why in damages.items():
            if not exists(places[step]):  # the run that owns the directory removed it during the read
                continue
            aside = ""
            if set_aside:
                try:
                    aside = f", set aside as {_set_aside(places[step], f'{set_aside}-{step}').name}"
                except StorageError as error:
                    aside = f", could not be set aside ({error.got})"
            again = f", {step - used} steps are trained again" if set_aside else ""
            self.say(f"step {step} is damaged ({why}){aside}; using step {used}{again}")

    def _nothing_good(self, damages: Mapping[int, Damage]) -> StorageError:
        reasons = ", ".join(f"step {step}: {why}" for step, why in list(damages.items())[:3])
        got = Words(f"damaged checkpoints alone ({reasons or 'all set aside'})")
        hint = "Restore one from a copy, or give another directory to start afresh"
        return StorageError(str(self.directory), got, "one that passes its checksums", hint)


def _host_copy(state: Any) -> Leaves:
    """Copies every leaf to new host memory: on a CPU `np.asarray` would share the buffer that the next call donates."""
    leaves = dict(named_leaves(state))
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {path: np.array(leaf, copy=True) for path, leaf in leaves.items()}


def _set_aside(place: Path, name: str) -> Path:
    aside = place.with_name(name)
    number = 1
    while exists(aside):
        number += 1
        aside = place.with_name(f"{name}-{number}")
    return rename(place, aside)
