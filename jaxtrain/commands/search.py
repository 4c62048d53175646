"""The command `search`: runs or resumes a hyperparameter search and prints its result."""

from typing import Any

from jaxtrain.commands.options import Options, command, join, quote, use_a_host_device_per_core
from jaxtrain.files import exists
from jaxtrain.search.report.files import summarise
from jaxtrain.search.report.headline import sentences, title
from jaxtrain.search.run import SearchResult

NOTHING_LEFT = "every trial diverged: lower the rates of search.space, or clip the gradients (optimizer.clip_norm)"

UNDEFINED = "eval.metric was undefined in every trial that did not diverge: take another, or another validation split"

SEARCH_FILES = (
    ("report.html", "trials, pictures and the comparison; opens offline in a browser"),
    ("best_config.json", "the config of the best trial"),
    ("run.json", "the id and config of the study, by which it knows its directory"),
    ("budget.json", "search.budget and the trials that it bought"),
    ("trials.jsonl", "a line for each trial"),
    ("result.json", "the best trial, the trials tied with it, the comparison"),
    ("comparison.json", "the best trial and the config's own values on unused seeds"),
    ("pictures", "the pictures of the report as PNG"),
    ("tensorboard", "the hyperparameter table for TensorBoard"),
    ("mlflow", "what the MLflow server has of the search"),
)

OF_A_WORKER = {"trials.jsonl": "a line for each trial that this worker trained; the report has those of all workers"}
"""The files of a worker's folder that hold its own part of a shared study."""


def run(options: Options) -> int:
    """Runs the search; returns the exit code of its result."""
    use_a_host_device_per_core()
    config, workdir = options.resolve()
    from jaxtrain.parallel.compilation import use_persistent_cache
    from jaxtrain.search.run import run_search

    use_persistent_cache()
    result = run_search(config, workdir, name=options.name, quiet=options.quiet, accept_edited=options.accept_edited)
    options.show(search_report(result, options.again()), _lack(result))
    options.document.show(search_document(result))
    return result.exit_code


def search_document(result: SearchResult) -> dict[str, Any]:
    """Returns what `search` tells programs; of one that was interrupted, what is known so far."""
    has_report = result.status != "interrupted"
    return {
        "status": result.status,
        **summarise(result.findings),
        "folder": str(result.folder),
        "best_config": str(result.folder / "best_config.json") if has_report and result.findings.best else None,
        "report": str(result.folder / "report.html") if has_report else None,
        "signal": result.signal,
    }


def _lack(result: SearchResult) -> str:
    """Returns why there is no best trial; empty if there is one, or if the search was interrupted."""
    return {"diverged": NOTHING_LEFT, "undefined": UNDEFINED}.get(result.status, "")


def search_report(result: SearchResult, arguments: list[str]) -> list[str]:
    """Formats the output of `search`; `arguments` are the options that select the config and the directory."""
    findings = result.findings
    folder = result.folder
    told = ", ".join(f"{count} {status}" for status, count in findings.counts.items() if count)
    lines = [
        f"{result.status}: {len(findings.outcomes)} trials ({told or 'none finished'}) in {findings.seconds:.1f} s"
    ]
    if result.status == "interrupted":
        return [*lines, "next:", f"  {command()} search {join(arguments)}   # resumes where it stopped"]
    lines += [f"  {title(findings)}", *(f"  {sentence}" for sentence in sentences(findings)[1:])]
    lines += [] if findings.best else [f"  {_lack(result)}"]
    is_shared = findings.space.config["search"]["storage"] is not None
    files = dict(SEARCH_FILES) | (OF_A_WORKER if is_shared else {})
    lines += [f"wrote {folder}/:", *(f"  {name:<24}{what}" for name, what in files.items() if exists(folder / name))]
    if findings.best:
        lines += ["next:", f"  {command()} --config={quote(folder / 'best_config.json')}"]
    return lines
