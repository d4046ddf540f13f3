"""The models page in a real browser, over the real gateway with a scripted engine: what is there, and each change."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from server.access.keys import create_key
from serving import EngineState, ParityError
from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.paged_gateway import BRAVER, CAPTAIN, POET, Pages, make, paged_gateway, sound_archive
from tests.server.conftest import Gateway
from tests.server.jobs.test_fine_tuning_api import add_file, create

pytestmark = pytest.mark.browser

Screenshot = Callable[[Page, str], None]
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"


@pytest.fixture
def gateway(tmp_path: Path, pages: Pages) -> Iterator[Gateway]:
    """A base, the captain tuned on it, a braver one tuned on him, and the alias `support` for the captain."""
    with paged_gateway(tmp_path, pages) as gateway:
        make(gateway, CAPTAIN)
        make(gateway, BRAVER, CAPTAIN)
        assert gateway.http.put("/v1/aliases/support", json={"model": CAPTAIN}).status_code == 201
        yield gateway


def expect_models(page: Page, count: int) -> None:
    expect(page.locator(".models-node")).to_have_count(count)


def choose(page: Page, model: str) -> None:
    page.locator(f".models-node[data-model='{model}']").click()
    expect(page.locator(".models-name")).to_have_text(model)


def answer_questions(page: Page) -> None:
    page.on("dialog", lambda dialog: dialog.accept())


def test_the_tree_leads_to_each_versions_card_and_a_refresh_keeps_the_choice(
    gateway: Gateway, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(f"{gateway.url}/models")
    expect_models(page, 3)
    expect(page.locator(".models-tree ul ul ul .models-word")).to_have_text("braver-captain")
    choose(page, BRAVER)
    card = page.locator(".models-card")
    expect(card.locator(".models-chain li")).to_have_count(3)
    expect(card).to_contain_text("✓ Passed")
    expect(card).to_contain_text("3.83 → 0.62")
    expect(card.get_by_role("link", name="Compare with parent")).to_have_attribute(
        "href", f"./?models={CAPTAIN.replace(':', '%3A')}%2C{BRAVER.replace(':', '%3A')}"
    )
    expect(card.locator("a[href^='train?job=ftjob-']")).to_have_count(1)
    expect(page.locator(".models-engines")).to_contain_text("base Ready")
    assert axe(page) == []
    screenshot(page, "models-en-light")
    page.reload()
    expect(page.locator(".models-name")).to_have_text(BRAVER)
    page.locator(".models-step").last.click()
    expect(page.locator(".models-name")).to_have_text(CAPTAIN)


def test_an_alias_is_made_promoted_rolled_back_and_deleted(gateway: Gateway, open_page: OpenPage) -> None:
    page = open_page(f"{gateway.url}/models?model={BRAVER}")
    answer_questions(page)
    page.locator("#models-alias").fill("support")
    page.locator("#models-promote").click()
    expect(page.locator(".models-done")).to_contain_text(f"support now points to {BRAVER}")
    page.get_by_role("button", name="History").click()
    expect(page.locator(".models-history li")).to_have_count(2)
    page.get_by_role("button", name="Roll back").click()
    expect(page.locator(".models-done")).to_contain_text(f"support points to {CAPTAIN} again")
    expect(page.locator(".models-history li")).to_have_count(3)
    assert gateway.http.get("/v1/aliases/support").json()["model"] == CAPTAIN
    page.locator("#models-alias").fill("no such/../name")
    page.locator("#models-promote").click()
    expect(page.locator(".tl-problem")).to_contain_text("no such/../name")
    page.locator("#models-unalias-0").click()
    expect(page.locator(".models-done")).to_contain_text("Alias support deleted")
    assert gateway.http.get("/v1/aliases/support").status_code == 404


def test_what_an_alias_stands_for_cant_be_deleted_and_the_rest_goes_after_a_question(
    gateway: Gateway, open_page: OpenPage
) -> None:
    page = open_page(f"{gateway.url}/models?model={CAPTAIN}")
    expect(page.locator("#models-delete")).to_be_disabled()
    expect(page.locator("#models-held")).to_contain_text("support")
    choose(page, BRAVER)
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator("#models-delete").click()
    expect(page.locator(".models-name")).to_have_text(BRAVER)
    # Another tab gives it a name in the moment before this one deletes it.
    assert gateway.http.put("/v1/aliases/brave", json={"model": BRAVER}).status_code == 201
    answer_questions(page)
    page.evaluate("document.getElementById('models-delete').click()")
    expect(page.locator(".tl-problem").or_(page.locator("#models-held")).first).to_contain_text("brave")
    assert gateway.http.get(f"/v1/models/{BRAVER}").status_code == 200
    assert gateway.http.delete("/v1/aliases/brave").status_code == 200
    expect(page.locator("#models-delete")).to_be_enabled(timeout=15_000)
    page.locator("#models-delete").click()
    expect(page.locator(".models-done")).to_contain_text(f"{BRAVER} deleted")
    expect_models(page, 2)
    assert gateway.http.get(f"/v1/models/{BRAVER}").status_code == 404


def test_a_model_goes_out_and_comes_in_again_under_another_name(
    gateway: Gateway, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(f"{gateway.url}/models?model={CAPTAIN}")
    with page.expect_download() as downloading:
        page.locator("#models-download").click()
    archive = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(archive)
    assert archive.name == "ft_base_personal_captain_cccccccc.tar.gz"
    with tarfile.open(archive) as packed:
        assert any(name.endswith("adapter_model.safetensors") for name in packed.getnames())
    page.locator("#models-import").click()
    expect(page.locator("#models-import-status")).to_have_text("Choose an archive first.")
    page.locator("#models-file").set_input_files(archive)
    page.locator("#models-new-name").fill("old-salt")
    page.locator("#models-import").click()
    expect(page.locator(".models-done")).to_contain_text("old-salt imported")
    expect(page.locator(".models-name")).to_have_text("old-salt")
    assert gateway.http.get("/v1/models/old-salt").status_code == 200


def test_an_archive_that_is_refused_says_why_and_leaves_nothing(
    gateway: Gateway, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(f"{gateway.url}/models")
    expect_models(page, 3)
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"this is no archive")
    page.locator("#models-file").set_input_files(bad)
    page.locator("#models-import").click()
    expect(page.locator("section .tl-problem .tl-detail")).to_contain_text("neither a .tar.gz nor a .zip")
    page.locator("#models-file").set_input_files(sound_archive(tmp_path, gateway))
    page.locator("#models-new-name").fill(CAPTAIN)
    held: list[Route] = []
    page.route("**/v1/adapters", lambda route: held.append(route))  # Playwright marks what it is given
    page.locator("#models-import").click()
    expect(page.locator("section .tl-problem")).to_have_count(0)  # while the next is on its way
    expect(page.locator("#models-import")).to_be_disabled()
    held[0].continue_()
    expect(page.locator("section .tl-problem .tl-detail")).to_contain_text("ft:")
    expect(page.locator("#models-import")).to_be_enabled()
    expect_models(page, 3)


def test_states_are_told_and_a_new_one_shows_without_a_refresh(
    gateway: Gateway, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(f"{gateway.url}/models", locale="zh-CN", color_scheme="dark")
    expect(page.locator("h1")).to_have_text("模型")
    make(gateway, POET)
    gateway.services.registry._loader.state_of(POET).refusal = ParityError(f"{HOSTILE} 的回答不一致")
    create(gateway, suffix="coming", training_file=add_file(gateway, status="uploaded"))
    page.locator(f".models-node[data-model='{POET}']").click()
    expect(page.locator(".models-card .tl-problem")).to_contain_text(HOSTILE)
    expect(page.locator(".models-card img")).to_have_count(0)
    expect(page.locator(".models-tree .models-bad")).to_have_text("未发布")
    assert page.title() == "模型 · tuneloop"
    assert axe(page) == []
    screenshot(page, "models-zh-dark")


def test_an_engine_that_is_down_is_told_and_the_models_stay(gateway: Gateway, open_page: OpenPage) -> None:
    page = open_page(f"{gateway.url}/models")
    gateway.engine.state = EngineState.DEAD
    expect(page.locator(".models-engines")).to_contain_text("Failed, restarting")
    expect_models(page, 3)
    page.locator("#models-alias").fill("bosun")
    page.locator("#models-promote").click()
    expect(page.locator(".tl-problem")).to_contain_text("engine")


def test_an_open_page_outlives_a_restart_of_the_server(tmp_path: Path, pages: Pages, open_page: OpenPage) -> None:
    with paged_gateway(tmp_path, pages) as before:
        make(before, CAPTAIN)
        page = open_page(f"{pages.url}/models")
        expect_models(page, 2)
    page.locator(".models-node").first.click()
    expect(page.locator(".tl-problem")).to_contain_text("Can't reach tuneloop")
    expect_models(page, 2)
    with paged_gateway(tmp_path, pages) as after:
        make(after, POET)
        expect_models(page, 3)
        expect(page.locator(".tl-problem")).to_have_count(0)


def test_without_a_key_the_page_asks_for_one_and_a_plain_key_sees_no_engines(
    gateway: Gateway, open_page: OpenPage
) -> None:
    with gateway.database.session() as session:
        create_key(session, "admin")
        plain = create_key(session, "plain")[1]
    gateway.services.keys.invalidate()
    page = open_page(f"{gateway.url}/models")
    page.locator("#tl-api-key input").fill(plain)
    page.locator("#tl-use-key").click()
    expect_models(page, 3)
    expect(page.get_by_text("visible to admins only")).to_be_visible()
    expect(page.locator("#tl-api-key")).to_be_hidden()


def test_an_empty_server_says_how_to_begin_and_the_page_fits_a_phone(
    tmp_path: Path, pages: Pages, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    with paged_gateway(tmp_path, pages) as gateway:
        page = open_page(f"{gateway.url}/models", viewport={"width": 390, "height": 844})
        expect(page.locator(".tl-empty-state")).to_contain_text("No tuned models yet")
        make(gateway, CAPTAIN)
        page.reload()
        expect_models(page, 2)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert axe(page) == []
        screenshot(page, "models-phone")
