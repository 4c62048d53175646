"""The command `replay`: takes one step of a run again, and looks at it."""

from pathlib import Path

from jaxtrain.commands.options import Options, recorded_devices, use_host_devices
from jaxtrain.errors import UsageError, Words
from jaxtrain.files import write_json


def run(options: Options) -> int:
    """Replays `--step` of the run in `--workdir`; returns 0."""
    assert options.workdir is not None
    if options.step is None:
        expected = "the number of a step, 0 for the first"
        raise UsageError("--step", Words("nothing"), expected, "Give replay --workdir=DIR --step=N")
    use_host_devices(recorded_devices(Path(options.workdir)) if options.trial is None else 1)
    from jaxtrain.parallel.compilation import use_persistent_cache
    from jaxtrain.replay.report import replay_document, replay_lines, wrote_line
    from jaxtrain.replay.step import replay_step

    use_persistent_cache()
    replay = replay_step(
        options.workdir,
        options.step,
        trial=options.trial,
        seed=options.seed,
        fold=options.fold,
        save=options.save,
        trust=options.trust,
        say=lambda line: options.show([line]),
    )
    result = replay.folder / "result.json"
    files = [result, *replay.files]
    document = {**replay_document(replay), "files": [str(path) for path in files]}
    write_json(result, document)
    options.show([*replay_lines(replay), wrote_line(replay.folder, files)])
    options.document.show(document)
    return 0
