"""Every touch of the file system goes through jaxtrain/files.py, and what fails there is one line."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxtrain

PACKAGE = Path(jaxtrain.__file__).parent

METHODS = {
    *("open", "read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "touch", "rmdir", "unlink", "rename"),
    *("exists", "is_file", "is_dir", "is_symlink", "stat", "lstat", "chmod", "glob", "rglob", "iterdir", "samefile"),
    *("absolute", "resolve", "cwd", "home", "expanduser", "symlink_to", "hardlink_to", "readlink", "owner"),
    *("walk", "is_mount", "is_socket", "is_fifo", "is_block_device", "is_char_device", "lchmod", "utime"),
}
"""Methods of paths that ask the system, also of `io`, `gzip` and `zipfile`."""

WITHOUT_FILES = {
    *("environ", "fsencode", "fsdecode", "fspath", "PathLike", "pathsep", "strerror", "getpid", "kill", "_exit"),
    *("cpu_count", "sched_getaffinity", "sysconf", "register_at_fork", "get_terminal_size"),
    *("pipe", "read", "close", "set_blocking"),
    *("BytesIO", "StringIO", "TextIOWrapper", "SEEK_END", "SEEK_SET", "SEEK_CUR"),
}
"""Names of `os` and `io` that touch no file by its path."""

OF_FILES = {"os", "os.path", "shutil", "tempfile", "glob", "io", "sqlite3", "runpy", "linecache", "mmap"}
OF_LIBRARIES = {
    *("np.load", "np.save", "np.savez", "np.loadtxt", "np.genfromtxt", "np.fromfile", "np.memmap"),
    *("subprocess.run", "subprocess.Popen", "subprocess.check_output", "subprocess.call", "subprocess.check_call"),
}
TAKING_PATHS = {
    *("ParquetFile", "ParquetWriter", "read_table", "write_table", "ZipFile", "TarFile", "FileHandler", "FileIO"),
    *("RecordWriter", "SummaryWriter", "create_engine", "InferenceSession", "load_file", "save_file", "open_memmap"),
    *("savefig", "imread", "imsave", "truetype", "tofile", "savetxt", "spec_from_file_location", "load_from_disk"),
}
"""Functions and classes of libraries that take a path, whatever they are imported as."""

EXCEPTIONS = {
    ("main.py", "os.dup2"): "the standard output, once its reader is gone, is no path of a user",
    ("main.py", "os.open"): "as above",
    ("main.py", "os.devnull"): "as above",
    ("main.py", "os.O_WRONLY"): "as above",
    ("main.py", "open"): "as above",
    ("commands/options.py", "shutil.which"): "looks a command up, and answers None to every error",
    ("data/image_files.py", "Image.open"): "reads bytes in memory",
    ("data/readers/arrays.py", "np.load"): "reads from an open file",
    ("data/readers/arrays.py", "archive.zip.open"): "as above",
    ("storage/content_checksums.py", "np.savez"): "writes to memory",
    ("export/exported_model.py", "(folder / MANIFEST).read_text"): "runs in exports, where files.py is not",
    ("export/exported_model.py", "(folder / PROGRAM).read_bytes"): "as above",
    ("data/readers/embedded.py", "np.loadtxt"): "reads lines of text",
    ("export/check.py", "subprocess.run"): "starts this Python, on a folder that was just written",
    ("storage/environment.py", "subprocess.run"): "answers None to every error",
    ("export/to_onnx/running.py", "onnxruntime.InferenceSession"): "reads bytes in memory",
    ("replay/step.py", "np.savez"): "writes to memory",
    ("reports/page.py", "figure.savefig"): "writes to memory",
    ("trackers/figures.py", "figure.savefig"): "writes to memory",
    ("trackers/drawing/canvas.py", "ImageFont.truetype"): "answers another font to every error",
    ("trackers/event_files.py", "RecordWriter"): "in a file that was just made, and what fails there is said once",
    (
        "search/shared/database.py",
        "sqlalchemy.create_engine",
    ): "opens nothing; what is opened later is reported by _reported",
}
"""(module, call) -> why it needs no guard."""


def touches(tree: ast.AST, guarded: bool = False) -> Iterator[tuple[int, str]]:
    """Yields (line, code) of what touches the file system outside a `with guarded(...)`."""
    if isinstance(tree, ast.With):
        calls = {ast.unparse(item.context_expr.func) for item in tree.items if isinstance(item.context_expr, ast.Call)}
        guarded = guarded or "guarded" in calls
    called = tree.func if isinstance(tree, ast.Call) else None
    for child in ast.iter_child_nodes(tree):
        if not guarded and (name := touched_by(child) or (passed_on(child) if child is not called else "")):
            yield getattr(child, "lineno", 0), name
        yield from touches(child, guarded)


def touched_by(node: ast.AST) -> str:
    """Returns the code of what touches the file system by this node; empty for all other nodes."""
    name = ast.unparse(node.func if isinstance(node, ast.Call) else node) if isinstance(node, ast.expr) else ""
    module, _, attribute = name.partition(".")
    if isinstance(node, ast.ImportFrom) and (node.module in OF_FILES or (node.module == "pathlib" and renamed(node))):
        return ast.unparse(node)
    if isinstance(node, ast.Import) and any(alias.name in OF_FILES | {"pathlib"} for alias in renamed(node)):
        return ast.unparse(node)
    if isinstance(node, ast.Call) and name.rpartition(".")[2] in TAKING_PATHS:
        return name
    if isinstance(node, ast.Attribute):
        is_touch = module in OF_FILES and attribute not in WITHOUT_FILES and "." not in attribute
        return name if is_touch or (module == "Path" and attribute in METHODS) else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and name != "options.resolve":
        renames = node.func.attr == "replace" and len(node.args) == 1 and not node.keywords  # Path.replace
        return name if renames or node.func.attr in METHODS or name in OF_LIBRARIES else ""
    return name if isinstance(node, ast.Call) and name == "open" else ""


def renamed(node: ast.Import | ast.ImportFrom) -> list[ast.alias]:
    """Returns what is imported under another name, by which it would not be known here."""
    return [alias for alias in node.names if alias.asname]


def passed_on(node: ast.AST) -> str:
    """Returns the code of a method of a path that is not called here but handed to what calls it."""
    return ast.unparse(node) if isinstance(node, ast.Attribute) and node.attr in METHODS else ""


MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"files.py"}))
def test_every_touch_of_the_file_system_goes_through_the_guard(module: str):
    found = [(line, name) for line, name in touches(ast.parse(MODULES[module].read_text()))]
    unguarded = [f"{module}:{line} {name}" for line, name in found if (module, name) not in EXCEPTIONS]
    assert not unguarded, f"call jaxtrain/files.py, or write it in a block `with guarded(...)`: {unguarded}"


def test_every_exception_is_needed():
    for module, name in EXCEPTIONS:
        assert name in {found for _, found in touches(ast.parse(MODULES[module].read_text()))}, (module, name)


@pytest.mark.parametrize(
    "code",
    [
        *("open(p)", "p.read_text()", "p.parent.mkdir()", "os.stat(p)", "map(os.unlink, p)", "map(Path.stat, p)"),
        *("os.path.exists(p)", "from os import stat", "shutil.rmtree(p)", "p.rename(q)", "p.replace(q)", "np.load(p)"),
        *(
            "submit(p.unlink)",
            "partial(p.read_text)",
            "f(key=path.stat)",
            "done = p.exists",
            "from os.path import exists",
        ),
        *("import os as system", "from pathlib import Path as P", "ParquetFile(p)", "pq.read_table(p)"),
        *("figure.savefig(p)", "subprocess.run(c)", "safetensors.numpy.load_file(p)", "from io import open"),
        *("with closing(open(p)):\n f()", "def f():\n with suppress(OSError):\n  p.is_file()"),
    ],
)
def test_a_touch_is_found_wherever_it_stands(code: str):
    assert [*touches(ast.parse(code))]
    indented = "\n".join(" " + line for line in code.splitlines())
    assert not [*touches(ast.parse(f"with suppress(E), guarded(p, 'read'):\n{indented}"))]


@pytest.mark.parametrize("code", ["text.replace('a', 'b')", "replace(x, a=1)", "os.environ.get('A')", "exists(p)"])
def test_what_touches_no_file_is_left_alone(code: str):
    assert not [*touches(ast.parse(code))]
