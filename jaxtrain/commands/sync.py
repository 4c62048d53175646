"""The command `sync`: sends to an MLflow server what it lacks of a run, or of a search."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.config.defaults import Config
from jaxtrain.config.registry import knobs_of
from jaxtrain.config.sections import Mlflow
from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.files import list_directory
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.ownership import Owner, read_owner
from jaxtrain.trackers.mlflow_files import Sender, ending_of, environment_of, run_sender
from jaxtrain.trackers.mlflow_rest import ANSWER_SECONDS, Refused, ServerDown, check_server
from jaxtrain.trackers.progress import plain_lines

WORKER = "worker-"

WORDS = {
    "row": "rows",
    "performance": "rows of performance",
    "image": "pictures",
    "text": "texts",
    "file": "files",
    "trial": "trials",
    "model": "models",
}
"""Kind of what was sent -> its plural."""


def run(options: Options) -> int:
    """Sends what the server lacks of the run and of the searches in `--workdir`; returns 0."""
    assert options.workdir is not None
    sent = sync(Path(options.workdir), options.uri, quiet=options.quiet)
    options.show([line for own in sent for line in sync_lines(own)])
    options.document.show({"workdir": options.workdir, "sent": list(map(asdict, sent))})
    return 0


@dataclass(frozen=True)
class Sent:
    """The things of a folder that were sent: kind -> count, for the kinds of WORDS, and the server's page of them."""

    folder: str
    counts: dict[str, int]
    page: str


def sync_lines(sent: Sent) -> list[str]:
    """Formats the output of `sync` on a folder."""
    counts = [f"{count:,} {WORDS[kind]}" for kind, count in sent.counts.items()]
    return [f"sent {', '.join(counts) or 'nothing, since nothing was missing'}", f"  {sent.page}"]


def sync(workdir: Path, uri: str | None = None, *, quiet: bool = False) -> list[Sent]:
    """Sends what an MLflow server lacks of the run and of the searches in a directory; returns what was sent of each.

    `uri` is the server's address (None: that of the config). Raises UsageError if the directory holds neither, is in
    use, or names no server; ConfigError if the address is no server's; StorageError if the server does not answer.
    """
    places = {folder: owner for folder in _folders(workdir) if (owner := read_owner(folder))}
    if not places:
        raise UsageError(str(workdir), Words("a directory without config.json"), "the directory of a run or a search")
    say = plain_lines(quiet).say
    with ExitStack() as held:
        held.enter_context(run_lock(workdir))
        for folder in places:
            if folder.name.startswith(WORKER):
                held.enter_context(run_lock(folder))
        return [_send(folder, workdir, owner, uri, say) for folder, owner in places.items()]


def is_tracked(workdir: Path) -> bool:
    """Tells whether the config of a run names an MLflow server."""
    owner = read_owner(workdir)
    section = owner and owner.saved.get("track", {}).get("mlflow")
    return bool(section) and section["uri"] != "file"


def _folders(workdir: Path) -> list[Path]:
    """Returns the folders of a directory that may hold a run, a search, or a worker's part of one."""
    below = workdir / "search"
    return [workdir, below, *(below / name for name in list_directory(below) if name.startswith(WORKER))]


def _send(folder: Path, workdir: Path, owner: Owner, uri: str | None, say: Callable[[str], None]) -> Sent:
    section = _section(owner.saved, uri)
    key = "--uri" if uri else "track.mlflow.uri"
    if reason := check_server(section, ANSWER_SECONDS, key):
        raise _no_answer(key, section["uri"], reason)
    sender = _sender(folder, workdir, owner, section, say)
    try:
        sender.send()
    except ServerDown as error:
        raise _no_answer(key, section["uri"], str(error)) from error
    except Refused as error:
        raise UsageError(key, Words(f"{section['uri']}, which refuses ({error})"), "one that takes the run") from error
    finally:
        sender.run.close()
    counts = {kind: count for kind, count in sender.run.noted.items() if kind in WORDS}
    return Sent(str(folder), counts, sender.run.page)


def _sender(folder: Path, workdir: Path, owner: Owner, section: Config, say: Callable[[str], None]) -> Sender:
    """Makes the sender of a run, or of a search, told that it has ended."""
    if folder == workdir:
        sender = run_sender(folder, owner, section, owner.saved, say, lambda: environment_of(folder))
        sender.end(ending_of(folder))
        return sender
    from jaxtrain.search.mlflow_trials import search_ending, search_sender

    sender = search_sender(folder, workdir, owner, section, owner.saved, say, dict)
    sender.end(search_ending(folder))
    return sender


def _section(saved: Mapping[str, Any], uri: str | None) -> Config:
    """Returns `track.mlflow` of a saved config, with the address that was given, if one was."""
    section = saved.get("track", {}).get("mlflow")
    if uri == "file":
        raise UsageError("--uri", uri, "the address of a server")
    if uri is not None:
        return (section or asdict(Mlflow(""))) | {"uri": knobs_of(Mlflow)["uri"].check("--uri", uri)}
    if section is None or section["uri"] == "file":
        raise UsageError("--uri", Words("nothing"), "the address of a server", "Give sync --workdir=DIR --uri=ADDRESS")
    return section


def _no_answer(key: str, uri: str, reason: str) -> StorageError:
    hint = "Run the same command again once it answers: what was sent is noted"
    return StorageError(key, Words(f"{uri}, which does not answer ({reason})"), "a server that answers", hint)
