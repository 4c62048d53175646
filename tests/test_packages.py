"""The order of the packages holds: imports point down, pure packages touch no file, one package knows the devices."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import jaxtrain

PACKAGE = Path(__file__).parent.parent / "jaxtrain"
PAGE = (PACKAGE.parent / "docs" / "architecture.md").read_text()

# Bottom-up, as docs/architecture.md shows them; packages of one tier stand side by side.
TIERS = (
    ("errors",),
    ("files",),
    ("config",),
    ("data", "core"),
    ("storage", "tasks", "models", "optimizers"),
    ("parallel", "trackers"),
    ("training",),
    ("export", "reports"),
    ("serve",),
    ("prediction",),
    ("lr_range",),
    ("search",),
    ("check", "replay"),
    ("commands",),
    ("main",),
)
HEIGHT = {package: height for height, packages in enumerate(TIERS) for package in packages}

# Pure: all of it can be jitted, vmapped and differentiated.
PURE = ("core", "tasks", "models", "optimizers")

# Files, clocks, consoles and trackers, by their top-level module.
SIDE_EFFECTS = {
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "time", "datetime", "logging", "socket", "subprocess"),
    *("tqdm", "matplotlib", "tensorboardX", "orbax", "mlflow"),
}
DEVICE_WORDS = {"pmap", "shard_map", "Mesh", "make_mesh"}


def module_name(path: Path) -> str:
    """Returns "jaxtrain.models.layers" for its file, and "jaxtrain.models" for the package's `__init__`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
# The package's own `__init__` only re-exports, so it may import everything; nothing may import it.
INNER = sorted(set(MODULES) - {"jaxtrain"})


def package(module: str) -> str:
    """Returns the part of a module's name that the tiers list: "models" for "jaxtrain.models.layers"."""
    return module.split(".")[1] if "." in module else module


def height(module: str) -> int:
    """Returns how high a module stands; what has no place, the package's `__init__` among it, stands above all."""
    return HEIGHT.get(package(module), len(TIERS))


def absolute(module: str, node: ast.ImportFrom) -> str:
    """Returns what `from ... import` names, with leading dots resolved from the module it stands in."""
    is_package = (PACKAGE.parent / module.replace(".", "/")).is_dir()
    parents = module.split(".") + ([""] if is_package else [])
    base = parents[: len(parents) - node.level] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def named_in_text(node: ast.AST) -> Iterator[str]:
    """Yields the module that a call of `import_module` names literally.

    A table of names such as "jaxtrain.tasks.losses:LOSSES" is no import: families and config look members up by name.
    """
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def imports(module: str) -> Iterator[str]:
    """Yields every module that a module imports at any depth, in functions and under TYPE_CHECKING alike."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from {name if name in MODULES else base for name in names}
        yield from named_in_text(node)


def inner_imports(module: str) -> set[str]:
    """Returns the modules of jaxtrain that a module imports."""
    return {name for name in imports(module) if name.split(".")[0] == "jaxtrain"}


def words(module: str) -> set[str]:
    """Returns the names, attributes and imported names that stand in a module's code."""
    found = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.update(node.name.split("."))
    return found


def modules_of(*packages: str) -> list[str]:
    """Returns the modules of some packages."""
    return [module for module in INNER if package(module) in packages]


def test_every_module_has_a_place_in_the_tiers_and_every_place_a_module():
    assert {package(module) for module in INNER} == set(HEIGHT)


@pytest.mark.parametrize("module", INNER)
def test_imports_point_down_or_sideways(module: str):
    above = {name for name in inner_imports(module) if height(name) > height(module)}
    assert not above, f"{module} imports from a package above its own: {sorted(above)}"


def test_imports_have_no_cycle():
    between_modules = {module: inner_imports(module) for module in INNER}
    between_packages: dict[str, set[str]] = {}
    for module, names in between_modules.items():
        lower = {package(name) for name in names} - {package(module)}
        between_packages.setdefault(package(module), set()).update(lower)
    for graph in (between_modules, between_packages):
        TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", modules_of("errors", "config", *PURE))
def test_lower_packages_import_no_files_clocks_or_trackers(module: str):
    allowed = {"pathlib"} if package(module) == "config" else set()
    # One compares the process before and after a config file ran, the other keeps a key in the user's settings.
    allowed |= {"os"} if module in ("jaxtrain.config.effects", "jaxtrain.config.trust") else set()
    found = {name.split(".")[0] for name in imports(module)} & SIDE_EFFECTS - allowed
    assert not found, f"{module} imports {sorted(found)}"


@pytest.mark.parametrize("module", modules_of(*PURE))
def test_pure_modules_neither_jit_nor_touch_files(module: str):
    allowed = {"jit"} if module == "jaxtrain.core.tracing" else set()  # inline, which compiles nothing
    assert not words(module) & {"jit", "open", "print", "input"} - allowed


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_parallel_speaks_of_devices(module: str):
    assert package(module) == "parallel" or not words(module) & DEVICE_WORDS


def defined(module: ast.Module) -> set[str]:
    """Returns the functions, classes, methods ("Class.method") and constants that a module defines at its top."""
    names = set()
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            methods = node.body if isinstance(node, ast.ClassDef) else []
            names |= {f"{node.name}.{method.name}" for method in methods if isinstance(method, ast.FunctionDef)}
    return names


def test_the_architecture_page_shows_every_package():
    shown = set(re.findall(r"\b([a-z_]+)(?:/|\.py)(?=[\s`])", PAGE.partition("## Where a change goes")[0]))
    assert set(HEIGHT) <= shown


def test_what_the_architecture_page_names_exists():
    refused = PAGE.index("## What the project refuses")
    places = re.findall(r"`((?:[a-z_]+/)*(?:\w+\.py|[a-z_]+/))(?::([\w.]+))?`", PAGE[:refused])
    assert len(places) > 80
    for path, name in places:
        file = (PACKAGE.parent if path.startswith(("tests/", "jaxtrain/")) else PACKAGE) / path
        assert file.exists(), f"docs/architecture.md names {path}"
        if name:
            assert name in defined(ast.parse(file.read_text())), f"docs/architecture.md names {path}:{name}"


def test_what_the_page_for_contributors_names_exists():
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    places = re.findall(r"`((?:jaxtrain|tests|docs|benchmarks)/[\w/.]+)`|\]\((\w[\w/.]+\.md)\)", page)
    assert len(places) > 8
    for path in filter(None, (name for pair in places for name in pair)):
        assert (PACKAGE.parent / path).exists(), f"CONTRIBUTING.md names {path}"


def test_every_public_name_is_imported_from_where_it_lives():
    for name in jaxtrain.__all__:
        assert getattr(jaxtrain, name).__name__ == name
    with pytest.raises(AttributeError, match="'trian_step'"):
        _ = jaxtrain.trian_step
