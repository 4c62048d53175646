"""The command `diff`: says where two runs, or two searches, part."""

from pathlib import Path

from jaxtrain.commands.options import Options, recorded_devices, use_host_devices
from jaxtrain.errors import UsageError, Words
from jaxtrain.files import exists


def run(options: Options) -> int:
    """Compares the runs of two directories; returns 0, whether they are the same or not."""
    if len(options.words) != 2:
        raise UsageError("diff", Words(f"{len(options.words)} directories"), "two", "Give diff DIR DIR")
    one, other = map(Path, options.words)
    use_host_devices(max(recorded_devices(place) for place in (one, other)))
    from jaxtrain.parallel.compilation import use_persistent_cache
    from jaxtrain.replay.pair import diff_runs
    from jaxtrain.replay.pair_report import pair_document, pair_lines, search_document, search_lines
    from jaxtrain.replay.search_pair import diff_searches

    use_persistent_cache()
    given = {"trust": options.trust, "say": lambda line: options.show([line])}
    if all(exists(place / "search") and not exists(place / "config.json") for place in (one, other)):
        searches = diff_searches(one, other, **given)
        options.show(list(search_lines(searches)))
        options.document.show({"pair": None, "searches": search_document(searches)})
        return 0
    pair = diff_runs(one, other, **given)
    options.show(list(pair_lines(pair)))
    options.document.show({"pair": pair_document(pair), "searches": None})
    return 0
