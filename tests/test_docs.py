"""The docs are true: links lead somewhere, commands and flags exist, every setting and endpoint is told."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from server.app.http import ROUTERS
from server.cli.main import app as command_line
from server.settings import Settings

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
MODULE_PATH = re.compile(r"`((?:adapter_format|training|serving|evaluation|server|ui|tests|benchmarks)/[a-z0-9_/.-]+)`")
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND = re.compile(r"^\$ (?:.venv/bin/)?tuneloop (.+?)(?:\s+#.*)?$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_and_images_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_to_a_section_lead_to_its_heading(page: Path) -> None:
    links = [link for link in ANCHOR.findall(page.read_text(encoding="utf-8")) if "://" not in link[0]]
    found = [(target, anchor, anchors(page.parent / target if target else page)) for target, anchor in links]
    assert [(target, anchor) for target, anchor, there in found if anchor not in there] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_of_the_code_are_there(page: Path) -> None:
    named = MODULE_PATH.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def commands() -> Iterator[tuple[str, str]]:
    """Yield (page, arguments of `tuneloop`) for every command line in the docs."""
    for page in PAGES:
        for found in COMMAND.findall(page.read_text(encoding="utf-8")):
            yield str(page.relative_to(REPOSITORY)), found


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_commands_and_their_flags_exist(page: str, line: str) -> None:
    command = typer.main.get_command(command_line)
    words = shlex.split(line)
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} - flags == set()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_told_in_its_own_words(name: str) -> None:
    text = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert str(Settings.model_fields[name].description) in row


def test_every_endpoint_is_told() -> None:
    told = "".join(page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs").glob("*.md"))
    endpoints = {
        f"{method} {route.path.replace(':path', '')}"
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
    }
    assert len(endpoints) > 10
    assert sorted(endpoint for endpoint in endpoints if f"`{endpoint}`" not in told) == []
