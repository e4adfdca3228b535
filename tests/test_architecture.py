"""The rooms of the package: imports run downwards only, and the budgets of the design hold."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

FLOORS = {
    "errors": 0,
    "runs": 1,
    "datamodules": 2,
    "models": 2,
    "tasks": 2,
    "inference": 3,
    "reporting": 4,
    "callbacks": 5,
    "loggers": 5,
    "config": 6,
    "engine": 7,
    "sweeps": 8,
}
HYDRA_ROOMS = ("config", "engine", "sweeps")
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ENTRY_POINTS = sorted(ROOT.glob("*.py")) + sorted((ROOT / "hydra_plugins").rglob("*.py"))
MAX_FILE = 250
MAX_FUNCTION = 50


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "src").parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(module, level) of every import statement."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, 0


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports from."""
    package = list(path.relative_to(ROOT / "src").parts[:-1])
    found = set()
    for module, level in imports(path):
        if level:
            parts = package[: len(package) - level + 1] + module.split(".")
            found.add(parts[0])
    return found - {""}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_downwards(path):
    if path.name == "__init__.py" and path.parent.name == "src":
        return  # it imports only when it is asked for `load`
    own = room(path)
    for other in imported_rooms(path) - {own}:
        assert FLOORS[other] < FLOORS[own], f"{path} imports {other}"


def test_no_file_spells_the_name_of_the_package():
    for path in SOURCES:
        assert not [m for m, level in imports(path) if not level and m.split(".")[0] == "src"], path


def test_only_the_upper_rooms_know_hydra():
    for path in SOURCES:
        known = {module.split(".")[0] for module, _ in imports(path)}
        assert room(path) in HYDRA_ROOMS or not known & {"hydra", "omegaconf"}, path


def test_one_module_lies_directly_in_the_package():
    modules = {path.name for path in (ROOT / "src").glob("*.py")}
    assert modules == {"__init__.py", "errors.py"}


def test_files_and_functions_are_short():
    for path in [*SOURCES, *ENTRY_POINTS]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE, path
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert length <= MAX_FUNCTION, f"{path}: {node.name}"


@pytest.mark.parametrize(
    ("path", "limit"), [("src/engine/train.py", 150), ("src/tasks/classification.py", 200)]
)
def test_the_two_files_that_everybody_reads_are_short(path, limit):
    assert len((ROOT / path).read_text().splitlines()) <= limit


def test_every_module_has_a_docstring():
    for path in [*SOURCES, *ENTRY_POINTS]:
        assert ast.get_docstring(parse(path)), path
