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
}
"""Methods of paths that ask the system, also of `io`, `gzip` and `zipfile`."""

WITHOUT_FILES = {
    *("environ", "fsencode", "fsdecode", "fspath", "PathLike", "pathsep", "strerror", "getpid", "kill", "_exit"),
    *("cpu_count", "sched_getaffinity", "sysconf", "register_at_fork", "get_terminal_size"),
    *("pipe", "read", "close", "set_blocking"),
}
"""Names of `os` that touch no file by its path."""

OF_FILES = {"os", "shutil", "tempfile", "glob"}
OF_LIBRARIES = {"np.load", "np.save", "np.savez", "np.loadtxt", "np.genfromtxt", "np.fromfile", "np.memmap"}

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
}
"""(module, call) -> why it needs no guard."""


def touches(tree: ast.AST, guarded: bool = False) -> Iterator[tuple[int, str]]:
    """Yields (line, code) of what touches the file system outside a `with guarded(...)`."""
    if isinstance(tree, ast.With):
        calls = {ast.unparse(item.context_expr.func) for item in tree.items if isinstance(item.context_expr, ast.Call)}
        guarded = guarded or "guarded" in calls
    for child in ast.iter_child_nodes(tree):
        if not guarded and (name := touched_by(child)):
            yield getattr(child, "lineno", 0), name
        yield from touches(child, guarded)


def touched_by(node: ast.AST) -> str:
    """Returns the code of what touches the file system by this node; empty for all other nodes."""
    name = ast.unparse(node.func if isinstance(node, ast.Call) else node) if isinstance(node, ast.expr) else ""
    module, _, attribute = name.partition(".")
    if isinstance(node, ast.ImportFrom) and node.module in OF_FILES:
        return ast.unparse(node)
    if isinstance(node, ast.Attribute):
        is_touch = module in OF_FILES and attribute not in WITHOUT_FILES and "." not in attribute
        return name if is_touch or (module == "Path" and attribute in METHODS) else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and name != "options.resolve":
        renames = node.func.attr == "replace" and len(node.args) == 1 and not node.keywords  # Path.replace
        return name if renames or node.func.attr in METHODS or name in OF_LIBRARIES else ""
    return name if isinstance(node, ast.Call) and name == "open" else ""


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
