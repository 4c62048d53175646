"""What the phases of a search share."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.parallel.compilation import Compilations
from jaxtrain.search.batch import Batch
from jaxtrain.search.batch_checkpoint import WorkFiles
from jaxtrain.search.programs import Programs
from jaxtrain.search.results import Findings
from jaxtrain.search.space import Space, Trial
from jaxtrain.search.study import Study
from jaxtrain.storage.files import write_json
from jaxtrain.trackers.progress import Progress
from jaxtrain.training.signals import Interruption


@dataclass(kw_only=True)
class Session:
    """What the phases of a search share.

    trials: how many the study has; pace: seconds of a lane-step, by signature; before: seconds of earlier sessions.
    """

    config: Config
    space: Space
    folder: Path
    study: Study
    programs: Programs
    higher_is_better: bool
    trials: int
    stop: Interruption
    compiled: Compilations
    bar: Progress
    pace: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    before: float = 0.0
    _ended: int = 0
    _going: int = 0
    _shown: dict[str, float] = field(default_factory=dict)

    @property
    def findings(self) -> Findings:
        """What was found so far; a session that trains nothing adds no seconds to those before."""
        seconds = self.before + (time.perf_counter() - self.began if self.pace else 0.0)
        metric = self.config["eval"]["metric"]
        return Findings(self.space, self.study.outcomes(), metric, self.higher_is_better, seconds)

    def work_files(self, name: str) -> WorkFiles | None:
        """Returns where a batch is saved; nowhere in a shared study, where another worker begins a dead one's anew."""
        if self.config["search"]["storage"] is not None:
            return None
        return WorkFiles(self.folder / "batches" / name, self.bar.say)

    def saved_batches(self) -> Iterator[WorkFiles]:
        """Yields what is saved of batches that have not ended; the rest that a kill has left is removed."""
        known = {outcome.trial for outcome in self.study.outcomes()}
        for folder in sorted(self.folder.glob("batches/[0-9]*"), key=lambda folder: int(folder.name)):
            files = WorkFiles(folder, self.bar.say)
            if files.points().keys() - known:
                yield files
            else:
                if not files.points():
                    self.bar.say(
                        f"{folder}: what was saved is damaged; the trials of this batch without an end start anew"
                    )
                files.remove()

    def batch(self, trials: Sequence[Trial], files: WorkFiles | None, **options: Any) -> Batch:
        """Returns a batch of trials over the seeds of the search, saved in these files."""
        first = self.config["seed"]
        seeds = range(first, first + self.config["search"]["seeds"])
        return Batch(
            space=self.space,
            trials=trials,
            programs=self.programs,
            higher_is_better=self.higher_is_better,
            stop=self.stop,
            compiled=self.compiled,
            save=files.save if files else lambda batch, work: None,
            pace=self.pace,
            on_progress=self._progressed,
            **{"seeds": seeds, **options},
        )

    def note_seconds(self) -> None:
        """Writes how long the study has taken, so that a kill loses no more than a rung of it."""
        write_json(self.folder / "seconds.json", self.findings.seconds)

    def show(self, ended: int, going: int, best: float | None) -> None:
        """Moves the bar to what has ended; what goes on moves it further by the part of it that is done."""
        self._ended, self._going, self._shown = ended, going, {} if best is None else {"best": best}
        self._progressed(0.0)

    def _progressed(self, part: float) -> None:
        self.bar.update(self._ended + int(part * self._going), **self._shown)
