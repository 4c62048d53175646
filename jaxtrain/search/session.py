"""The context that the phases of a search share, and its progress bar."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.files import list_directory
from jaxtrain.parallel.compilation import Compilations
from jaxtrain.search.batch import Batch
from jaxtrain.search.batch_checkpoint import WorkFiles
from jaxtrain.search.mlflow_trials import SearchMirror
from jaxtrain.search.programs import Programs
from jaxtrain.search.results import Findings
from jaxtrain.search.space import Space, Trial
from jaxtrain.search.study import Study
from jaxtrain.storage.seals import write_sealed
from jaxtrain.trackers.progress import Progress
from jaxtrain.training.signals import Interruption


@dataclass(kw_only=True)
class Session:
    """The context that the phases of a search share.

    name: of the config; folder: of this process; run: the id of the study in it; trials: their number in the study;
    stop: pending signals; compiled: counts compilations; mirror: the search on an MLflow server; pace: signature ->
    seconds of a step of one lane, as measured; began: when this session started (perf_counter);
    before: seconds of earlier sessions.
    """

    name: str
    config: Config
    space: Space
    folder: Path
    run: str
    study: Study
    programs: Programs
    higher_is_better: bool
    trials: int
    stop: Interruption
    compiled: Compilations
    bar: Progress
    mirror: SearchMirror
    pace: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    before: float = 0.0
    _ended: int = 0
    _going: int = 0
    _shown: dict[str, float] = field(default_factory=dict)

    @property
    def findings(self) -> Findings:
        """The findings so far; a session that trains nothing adds no seconds to those of earlier sessions."""
        seconds = self.before + (time.perf_counter() - self.began if self.pace else 0.0)
        metric = self.config["eval"]["metric"]
        return Findings(self.name, self.space, self.study.outcomes(), metric, self.higher_is_better, seconds)

    def work_files(self, name: str) -> WorkFiles | None:
        """Returns the checkpoint of a batch; None in a shared study, whose trials restart when a worker dies."""
        if self.config["search"]["storage"] is not None:
            return None
        return WorkFiles(self.folder / "batches" / name, self.bar.say, self.run)

    def saved_batches(self) -> Iterator[WorkFiles]:
        """Yields the checkpoints of unfinished batches, and removes those of finished or damaged ones."""
        known = {outcome.trial for outcome in self.study.outcomes()}
        place = self.folder / "batches"
        for name in sorted(filter(str.isdecimal, list_directory(place)), key=int):
            folder = place / name
            files = WorkFiles(folder, self.bar.say, self.run)
            if files.points().keys() - known:
                yield files
            else:
                if not files.points():
                    self.bar.say(
                        f"{folder}: the checkpoint is damaged; the unfinished trials of this batch restart from step 0"
                    )
                files.remove()

    def batch(self, trials: Sequence[Trial], files: WorkFiles | None, **options: Any) -> Batch:
        """Makes a batch of trials over the seeds of the search, saved in these files; `options` override its fields."""
        first = self.config["seed"]
        seeds = range(first, first + self.config["search"]["seeds"])
        shared = {"share": self.study.share_rung} if self.config["search"]["halving"] == "asha" else {}
        return Batch(
            space=self.space,
            trials=trials,
            programs=self.programs,
            higher_is_better=self.higher_is_better,
            stop=self.stop,
            compiled=self.compiled,
            save=files.save if files else lambda batch, work: None,
            pace=self.pace,
            on_progress=self._show_fraction,
            **{"seeds": seeds, **shared, **options},
        )

    def note_seconds(self) -> None:
        """Writes the seconds of the study, so that a kill loses at most those since the last rung."""
        write_sealed(self.folder / "seconds.json", {"seconds": self.findings.seconds})

    def show(self, ended: int, going: int, best: float | None) -> None:
        """Moves the bar to the number of ended trials; the `going` ones then move it by the fraction of their steps."""
        self._ended = ended
        self._going = going
        self._shown = {} if best is None else {"best": best}
        self._show_fraction(0.0)

    def _show_fraction(self, fraction: float) -> None:
        self.bar.update(self._ended + int(fraction * self._going), **self._shown)
