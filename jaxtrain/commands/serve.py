"""The command `serve`: answers requests with an exported model until it is stopped."""

import contextlib

from jaxtrain.commands.options import Options
from jaxtrain.errors import UsageError, Words, printable

HOST = "127.0.0.1"
PORT = 8000
REQUESTS = 128
SECONDS = 30
MEGABYTES = 16


def run(options: Options) -> int:
    """Serves the model in `--export` at `--host` and `--port`; returns 0 when SIGTERM or SIGINT ended it."""
    assert options.export is not None
    try:
        from jaxtrain.serve.server import serve
        from jaxtrain.serve.service import Limits
    except ModuleNotFoundError as error:
        hint = f"Run pip install 'jaxtrain[serve]': {error.name} is missing"
        raise UsageError("serve", Words("no server"), "the packages of a server", hint) from error
    from jaxtrain.export.loading import load_export
    from jaxtrain.parallel.compilation import use_persistent_cache

    def say(line: str) -> None:
        with contextlib.suppress(OSError):  # whoever read the output has gone; the clients have not
            if not options.quiet:
                print(printable(line), flush=True)

    def show(name: str, address: str) -> None:
        with contextlib.suppress(OSError):  # as above
            options.document.show({"export": options.export, "model": name, "address": address})

    use_persistent_cache()
    model = load_export(options.export)
    limits = Limits(
        options.most_requests or REQUESTS, options.deadline or SECONDS, (options.most_megabytes or MEGABYTES) * 2**20
    )
    serve(model, options.host or HOST, PORT if options.port is None else options.port, limits, say, show)
    return 0
