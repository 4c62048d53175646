"""The command `search`: a study from its config to its report."""

import shlex
from collections import Counter

from jaxtrain.commands.options import Options, command, use_a_host_device_per_core
from jaxtrain.search.report.headline import sentences, title
from jaxtrain.search.run import SearchResult

NOTHING_LEFT = "every trial diverged: lower the rates of search.space, or clip the gradients (optimizer.clip_norm)"


SEARCH_FILES = (
    ("report.html", "trials, pictures and the comparison: opens offline in a browser"),
    ("best_config.json", "the config of the best trial"),
    ("trials.jsonl", "a line for each trial"),
    ("result.json", "the best, its ties, the comparison"),
    ("comparison.json", "the best and the config's own values on further seeds"),
    ("pictures", "the report's pictures as PNG"),
    ("tensorboard", "the table of hyperparameters for TensorBoard"),
)


def run(options: Options) -> int:
    """Searches; returns the exit code of the result."""
    use_a_host_device_per_core()
    config, workdir = options.resolve()
    from jaxtrain.parallel.compilation import use_persistent_cache
    from jaxtrain.search.run import run_search

    use_persistent_cache()
    result = run_search(config, workdir, quiet=options.quiet)
    options.show(search_report(result, options.again()), NOTHING_LEFT if result.status == "diverged" else "")
    return result.exit_code


def search_report(result: SearchResult, arguments: list[str]) -> list[str]:
    """Returns what `search` prints at its end; `arguments` are those that chose the config."""
    found, folder = result.findings, result.folder
    counts = Counter(outcome.status for outcome in found.outcomes)
    told = ", ".join(f"{counts[status]} {status}" for status in ("done", "stopped", "diverged") if counts[status])
    lines = [f"{result.status}: {len(found.outcomes)} trials ({told or 'none ended'}) in {found.seconds:.1f} s"]
    if result.status == "interrupted":
        return [*lines, "next:", f"  {command()} search {shlex.join(arguments)}   # goes on where it stopped"]
    lines += [f"  {title(found)}", *(f"  {sentence}" for sentence in sentences(found)[1:])]
    lines += [] if found.best else [f"  {NOTHING_LEFT}"]
    lines += [f"wrote {folder}/:", *(f"  {name:<24}{what}" for name, what in SEARCH_FILES if (folder / name).exists())]
    if found.best:
        lines += ["next:", f"  {command()} --config={shlex.quote(str(folder / 'best_config.json'))}"]
    return lines
