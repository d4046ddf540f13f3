"""The floor plan: which folder may import which, how much a folder holds, and what a module must not be.

The walls between the packages are in `test_house`; these are within them. CONTRIBUTING.md says where what goes.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_house import OURS, REPOSITORY, imports

FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "adapter_format": (("manifest", "names", "files", "hashing", "disk"),),
    "server": (
        ("__main__",),
        ("cli",),
        ("app",),
        ("arena",),
        ("inspection", "versions"),
        ("jobs",),
        ("inference", "aliases"),
        ("files", "access"),
        ("storage",),
        ("settings", "wire"),
    ),
    "serving": (("registry", "parity"), ("adapters",), ("engines",), ("machine", "base_model"), ("errors",)),
    "training": (
        ("__main__",),
        ("run", "inspection", "demo"),
        ("learning", "result"),
        ("model", "process", "record", "rendering"),
        ("data", "preflight"),
        ("config",),
    ),
    "evaluation": (("arena", "report"), ("endpoint",)),
    "ui": (("apart",), ("app",), ("pages",), ("frame",), ("html",), ("words", "server_client")),
}
"""From the top floor down. What is on one may import what is on the floors below it, and nothing beside or above it."""
MAX_ENTRIES = 12
MORE_ENTRIES = {
    "server": 14,  # twelve folders, settings.py and __main__.py
    "server/cli/commands": 14,  # a module for each subcommand: the listing is the table of contents
    "training": 13,  # twelve folders and __main__.py
}
MIN_LINES = 40
SHORT = {
    "adapter_format/files.py",  # a table
    "adapter_format/names.py",  # half of the contract on disk
    "server/__main__.py",  # an entry
    "server/app/routes/openai/inference.py",  # routes
    "server/app/routes/settings.py",
    "server/arena/comparisons/holdout.py",  # one rule, that three subjects follow
    "server/arena/comparisons/sampling.py",  # a table
    "server/storage/migrations/env.py",  # Alembic's entry
    "server/storage/migrations/versions/0003_aliases.py",  # a migration
    "server/storage/tables/access.py",  # a table
    "server/wire/csv_lines.py",  # two subjects of the arena, and none of them owns it
    "server/wire/disconnect.py",  # answers and inspections, and neither owns it
    "serving/adapters/archive/member.py",  # what tar and zip have in common
    "serving/engines/racing.py",  # what asyncio lacks; servers and engines wait so
    "training/data/duplicates/exact.py",  # beside `near`
    "training/process/environment.py",  # comes before any library is loaded
    "ui/pages/keys/state.py",  # a page's modules have the same names everywhere
    "ui/pages/leaderboard/calls.py",  # likewise
    "ui/words/i18n.py",  # every page asks here for its words
}
"""Modules under `MIN_LINES`, and why. Any other is a paragraph of another module."""


def modules() -> Iterator[Path]:
    for package in OURS:
        yield from (path.relative_to(REPOSITORY) for path in sorted((REPOSITORY / package).rglob("*.py")))


def rooms(found: Iterable[tuple[Path, str]]) -> Iterator[tuple[str, str, str, str]]:
    """(package, importing room, imported room, what to say) of each import between two rooms of a package."""
    for path, name in found:
        package, *rest = path.with_suffix("").parts
        target, *inner = name.split(".")
        if rest != ["__init__"] and package == target and inner and rest[0] != inner[0]:
            yield package, rest[0], inner[0], f"{path} imports {name}"


def climbs(found: Iterable[tuple[Path, str]]) -> list[str]:
    """The imports that don't go down."""
    heights = {
        (package, room): -number
        for package, floors in FLOORS.items()
        for number, floor in enumerate(floors)
        for room in floor
    }
    return [said for package, room, other, said in rooms(found) if heights[package, room] <= heights[package, other]]


def test_imports_go_down() -> None:
    assert climbs(imports()) == []


def test_every_room_is_on_a_floor() -> None:
    there = {(path.parts[0], path.with_suffix("").parts[1]) for path in modules()}
    listed = {(package, room) for package, floors in FLOORS.items() for floor in floors for room in floor}
    assert {room for room in there if room[1] != "__init__"} == listed


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("server/jobs/run/queue.py", "server.app.services"),
        ("server/wire/errors.py", "server.storage.database"),
        ("server/versions/upload.py", "server.inspection.processes"),  # beside it
        ("serving/engines/accelerator_lease.py", "serving.registry.pool"),
        ("training/data/splits.py", "training.run.run"),
    ],
)
def test_an_import_that_climbs_is_noticed(path: str, name: str) -> None:
    assert climbs([(Path(path), name)]) == [f"{path} imports {name}"]


def circles(found: Iterable[tuple[Path, str]]) -> list[str]:
    """Imports in a circle, between modules or between folders of any depth."""
    known = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in modules()}
    graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, name in found:
        module = ".".join(path.with_suffix("").parts)
        if module.endswith("__init__"):
            continue  # what re-exports is imported by what is beside it, never by what it re-exports
        while name and name not in known:
            name = name.rpartition(".")[0]
        here, there = module.split("."), name.split(".")
        depth = next((n for n, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None)
        if depth:
            graphs[".".join(here[:depth])][here[depth]].add(there[depth])
    wrong = []
    for folder, graph in graphs.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            wrong.append(f"{folder}: {' → '.join(error.args[1])}")
    return wrong


def test_nothing_is_imported_in_a_circle() -> None:
    assert circles(imports()) == []


def test_a_circle_is_noticed() -> None:
    there = (Path("server/jobs/run/queue.py"), "server.jobs.create.creator.JobCreator")
    back = (Path("server/jobs/create/creator.py"), "server.jobs.run.queue.Runner")
    assert circles([there, back]) in (["server.jobs: run → create → run"], ["server.jobs: create → run → create"])


def test_nobody_below_the_app_sees_the_services() -> None:
    outside = {str(path) for path, name in imports() if name.startswith("server.app.services")}
    assert {path for path in outside if not path.startswith(("server/app/", "server/cli/"))} == set()


def crowded(listing: Iterable[tuple[str, int]]) -> list[str]:
    return [f"{folder} has {count}" for folder, count in listing if count > MORE_ENTRIES.get(folder, MAX_ENTRIES)]


def folders() -> Iterator[tuple[str, int]]:
    """Each folder of our packages and the number of its entries, `__init__.py` aside."""
    for package in OURS:
        for folder in (REPOSITORY / package, *(REPOSITORY / package).rglob("*")):
            if folder.is_dir() and folder.name != "__pycache__":
                entries = {entry.name for entry in folder.iterdir()} - {"__pycache__", "__init__.py"}
                yield str(folder.relative_to(REPOSITORY)), len(entries)


def test_a_folder_has_at_most_a_dozen_entries() -> None:
    assert crowded(folders()) == []


def test_a_crowded_folder_is_noticed() -> None:
    assert crowded([("serving", 13), ("training", 13)]) == ["serving has 13"]


def logic(source: str) -> list[str]:
    """What stands in an `__init__.py` beside docstrings, imports and `__all__`."""
    return [
        ast.unparse(node)
        for node in ast.parse(source).body
        if not isinstance(node, ast.Import | ast.ImportFrom)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    ]


def test_an_init_says_what_its_folder_is_and_does_nothing() -> None:
    for path in modules():
        if path.name == "__init__.py":
            source = (REPOSITORY / path).read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(source)), f"{path} doesn't say what its folder is"
            assert logic(source) == [], f"{path} has logic in it"


def test_logic_in_an_init_is_noticed() -> None:
    assert logic('"""A folder."""\nfrom a import b\n__all__ = ["b"]\nb.start()') == ["b.start()"]


def test_no_module_is_a_fragment() -> None:
    short = {
        str(path)
        for path in modules()
        if path.name != "__init__.py" and len((REPOSITORY / path).read_text(encoding="utf-8").splitlines()) < MIN_LINES
    }
    assert short == SHORT
