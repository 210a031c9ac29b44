"""The rooms: nothing imports upwards, nothing imports in a circle, no folder is crowded."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("training", "probes", "calibration", "selector")
"""From the ground up: each may import those before it."""
MOST_MODULES = 14
FILES = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(nodes) -> set[str]:
    """Modules of the package that these statements import from."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("layerpick."):
            home = node.module.removeprefix("layerpick.")
            names = {f"{home}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else home for name in names}
    return found


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_room_imports_upwards(name):
    allowed = ROOMS[: ROOMS.index(name.partition(".")[0]) + 1]
    everywhere = imports(ast.walk(ast.parse(MODULES[name].read_text("utf-8"))))
    assert not [other for other in everywhere if other.partition(".")[0] not in allowed]


def test_calibration_knows_no_probe_by_its_code():
    """What it reads of them are records."""
    for name, path in MODULES.items():
        if name.startswith("calibration"):
            found = imports(ast.walk(ast.parse(path.read_text("utf-8"))))
            assert not [other for other in found if other.startswith("probes")], name


def test_nothing_imports_in_a_circle():
    graph = {
        name: imports(ast.parse(path.read_text("utf-8")).body) - {name}
        for name, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}))
def test_no_folder_is_crowded(folder):
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES, folder
