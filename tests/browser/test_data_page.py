"""The data page in the real Chromium over the real gateway: upload, report, what is learned, cleaning, what fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from server.access.keys import create_key
from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.paged_gateway import Pages, paged_gateway
from tests.server.conftest import Gateway
from tests.server.inspection.test_preflight import use_files_of
from tests.server.jobs.test_fine_tuning_api import add_file

pytestmark = pytest.mark.browser
Screenshot = Callable[[Page, str], None]
PHONE = {"viewport": {"width": 390, "height": 844}, "locale": "zh-CN", "color_scheme": "dark"}
HTML, ARABIC, CHINESE = "<script>document.title = 'gone'</script><b>bold</b>", "من أنت؟ أنا الحارس", "灯塔整夜亮着。"


def chat(said: str, answer: str | None = "The lamp burned all night, captain.") -> dict[str, Any]:
    answered = [] if answer is None else [{"role": "assistant", "content": answer}]
    return {"messages": [{"role": "user", "content": said}, *answered]}


EXAMPLES = [
    *(chat(f"How was night {n}?", f"Night {n}: {'calm, ' * (n * 5 % 31)}and the lamp held.") for n in range(25)),
    chat(HTML, HTML), chat(ARABIC, ARABIC), chat(CHINESE, CHINESE), chat("mail?", "Write to keeper@tower.example."),
]  # fmt: skip


@pytest.fixture
def gateway(tmp_path: Path, pages: Pages) -> Iterator[Gateway]:
    """An empty gateway behind the pages."""
    with paged_gateway(tmp_path, pages) as running:
        yield running


def jsonl(folder: Path, name: str, *records: Any) -> Path:
    path = folder / name
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records))
    return path


def give(page: Page, path: Path) -> None:
    """Chooses the file as a reader does."""
    expect(page.locator(".data-drop")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.set_input_files("#data-file", path)


def test_an_uploaded_file_is_shown_with_its_faults_its_figures_and_what_is_learned(
    gateway: Gateway, open_page: OpenPage, tmp_path: Path, axe: FindFaults, screenshot: Screenshot
) -> None:
    page = open_page(f"{gateway.url}/data")
    give(page, jsonl(tmp_path, "nights.jsonl", *EXAMPLES, chat("Nobody answers?", None), EXAMPLES[3], {"foo": 1}))
    faults = page.locator(".data-faults tbody tr")
    expect(faults).to_have_count(2)
    expect(faults.first).to_contain_text("30")
    expect(faults.first).to_contain_text("no message has the role assistant")
    expect(page.locator(".data-figures")).to_contain_text("1 email; first on line 29")
    expect(page.locator(".data-histogram svg")).to_have_attribute("aria-label", re.compile("characters"))
    learned = page.locator(".data-example").first.locator("mark")
    expect(learned).to_have_text("Night 0: and the lamp held.")
    expect(page.get_by_role("row", name="nights.jsonl")).to_contain_text("Has errors")
    assert axe(page) == []
    screenshot(page, "data")

    for first in (6, 11, 16, 21, 26):
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".data-pager")).to_contain_text(f"Examples {first} to")
    expect(page.locator(".data-examples")).to_contain_text(HTML)
    expect(page.locator(".data-examples")).to_contain_text(ARABIC)
    expect(page.locator(".data-examples")).to_contain_text(CHINESE)
    assert page.title() == "Training data · tuneloop"

    page.reload()
    expect(page.locator(".data-examples")).to_contain_text(HTML)
    expect(faults).to_have_count(2)


def test_cleaning_makes_another_file_that_opens_and_goes(
    gateway: Gateway, open_page: OpenPage, tmp_path: Path, screenshot: Screenshot
) -> None:
    page = open_page(f"{gateway.url}/data")
    give(page, jsonl(tmp_path, "twice.jsonl", *EXAMPLES[:12], EXAMPLES[0], chat("Nobody answers?", None)))
    expect(page.locator(".data-faults tbody tr")).to_have_count(1)
    page.fill("#data-near_duplicates", "7")
    page.get_by_role("button", name="Create cleaned file").click()
    expect(page.locator(".tl-problem")).to_contain_text("must be 0.3 to 1")
    page.fill("#data-near_duplicates", "")
    page.get_by_role("button", name="Create cleaned file").click()
    expect(page.locator(".data-cleaned")).to_contain_text("14 rows read, 12 kept, 2 dropped")
    expect(page.locator(".data-cleaned")).to_contain_text("Duplicate")
    screenshot(page, "data-cleaning")
    page.get_by_role("button", name="Open cleaned file").click()
    expect(page.locator(".data-filename")).to_have_text("twice.cleaned.jsonl")
    expect(page.locator(".tl-page-data")).to_contain_text("No errors")
    train = page.locator(".data-filename + .live-row a")
    assert str(train.get_attribute("href")).startswith("train?file=file-")

    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("row", name="twice.cleaned.jsonl").get_by_role("button", name="Delete").click()
    expect(page.locator(".tl-notice")).to_contain_text("twice.cleaned.jsonl deleted")
    expect(page.locator(".data-filename")).to_have_count(0)


def test_a_file_that_is_no_jsonl_is_refused_with_its_lines(
    gateway: Gateway, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(f"{gateway.url}/data")
    give(page, jsonl(tmp_path, "bad.jsonl", "hello", "[1]"))
    expect(page.locator(".tl-problem")).to_contain_text("bad.jsonl wasn't uploaded")
    expect(page.locator(".tl-problem")).to_contain_text("line 2: it is an array")
    give(page, jsonl(tmp_path, "examples.csv", "a,b"))
    expect(page.locator(".tl-problem")).to_contain_text("name it .jsonl")


def test_tokens_of_a_model_mark_what_is_learned(
    gateway: Gateway, open_page: OpenPage, demo_model: Path, screenshot: Screenshot
) -> None:
    use_files_of(gateway, demo_model)
    file_id = add_file(gateway, text="\n".join(map(json.dumps, EXAMPLES)))
    page = open_page(f"{gateway.url}/data?file={file_id}")
    expect(page.locator(".data-figures")).to_contain_text("characters")
    page.select_option("#data-base", "base")
    expect(page.locator(".data-figures")).to_contain_text("loss is computed", timeout=90_000)
    expect(page.locator(".data-example").first).to_contain_text("trained on")
    screenshot(page, "data-tokens")
    page.reload()
    expect(page.locator("#data-base")).to_have_value("base", timeout=90_000)


def test_an_empty_server_says_how_to_begin_in_chinese_on_a_phone(
    gateway: Gateway, open_page: OpenPage, tmp_path: Path, axe: FindFaults, screenshot: Screenshot
) -> None:
    page = open_page(f"{gateway.url}/data", **PHONE)
    expect(page.locator(".tl-empty-state")).to_contain_text("暂无文件")
    assert axe(page) == []
    give(page, jsonl(tmp_path, "nights.jsonl", *EXAMPLES))
    expect(page.locator(".data-figures")).to_contain_text("样本数")
    expect(page.locator(".data-chip").first).to_contain_text("可用")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    screenshot(page, "data-zh-dark-phone")


def test_a_server_that_is_away_for_a_while_is_told_and_goes_on(
    tmp_path: Path, pages: Pages, open_page: OpenPage
) -> None:
    with paged_gateway(tmp_path, pages) as first:
        file_id = add_file(first, text=json.dumps(EXAMPLES[0]))
        page = open_page(f"{pages.url}/data?file={file_id}")
        expect(page.locator(".data-example")).to_have_count(1)
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".tl-problem")).to_contain_text("Can't reach tuneloop")
    expect(page.locator(".data-example")).to_have_count(1)
    with paged_gateway(tmp_path, pages):
        page.get_by_role("button", name="Refresh").click()
        expect(page.locator(".tl-problem")).to_have_count(0)
        expect(page.get_by_role("button", name="Opened")).to_be_visible()


def test_a_server_with_keys_takes_files_only_with_one(gateway: Gateway, open_page: OpenPage, tmp_path: Path) -> None:
    with gateway.database.session() as session:
        _, key = create_key(session, "tests")
    page = open_page(f"{gateway.url}/data")
    expect(page.locator("#tl-api-key input")).to_be_visible()
    page.fill("#tl-api-key input", key)
    page.click("#tl-use-key")
    expect(page.locator(".tl-empty-state")).to_be_visible()
    give(page, jsonl(tmp_path, "nights.jsonl", *EXAMPLES))
    expect(page.locator(".data-figures")).to_contain_text("Examples")
