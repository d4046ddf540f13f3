"""The training page in the real Chromium over the real gateway; the trainer is scripted: it tells what a test says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update

from server.app.run import listen
from server.jobs.states import add_event
from server.storage.tables import JobCheckpointRow, JobRow, new_id, now_s
from serving import EngineState
from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.paged_gateway import Pages, paged_gateway
from tests.conftest import free_port
from tests.http_server import HTTPServer
from tests.server.conftest import Gateway
from tests.server.inspection.test_preflight import use_files_of
from tests.server.jobs.test_fine_tuning_api import add_file, add_job
from ui.apart import create_apart_app

pytestmark = pytest.mark.browser
Screenshot = Callable[[Page, str], None]
PHONE = {"viewport": {"width": 390, "height": 844}, "locale": "zh-CN", "color_scheme": "dark"}
TUNED = "ft:base:personal:keeper:kkkkkkkk"
LINES = "\n".join(
    json.dumps(
        {"messages": [{"role": "user", "content": f"Night {n}?"}, {"role": "assistant", "content": f"Calm {n}."}]}
    )
    for n in range(40)
)
PREFERENCES = "\n".join(
    json.dumps({
        "input": {"messages": [{"role": "user", "content": f"Night {n}?"}]},
        "preferred_output": [{"role": "assistant", "content": "Calm, captain."}],
        "non_preferred_output": [{"role": "assistant", "content": "Calm."}],
    })
    for n in range(12)
)  # fmt: skip
HEALTH = {"code": "plateau", "severity": "warning", "step": 30, "remedy": "Set `n_epochs` to 2."}


@pytest.fixture
def gateway(tmp_path: Path, pages: Pages, demo_model: Path) -> Iterator[Gateway]:
    """A gateway whose jobs wait for ever: nobody trains. Its base has the embedded one's tokenizer and sizes."""
    with paged_gateway(tmp_path, pages) as running:
        use_files_of(running, demo_model)
        running.services.runner._loop._work = nobody_trains  # type: ignore[method-assign]
        yield running


async def nobody_trains() -> None:
    """In place of the runner's look at the queue: jobs stay as the test writes them."""


def running_job(gateway: Gateway, **values: Any) -> str:
    """A job that has been told to run; nothing of it runs."""
    told = {"status": "running", "wanted_model": TUNED, "training_file": add_file(gateway, text=LINES)}
    return add_job(gateway, **told | values)


def tell(gateway: Gateway, job_id: str, first: int, last: int, of: int = 60) -> None:
    """The metrics of these steps, a validation every 15."""
    with gateway.database.session() as session:
        for step in range(first, last + 1):
            told = {"step": step, "total_steps": of, "train_loss": 3.2 / (1 + step / 6) + (step * 7 % 5) / 20,
                    "learning_rate": 1e-3 * (1 - step / of), "tokens_per_second": 900.0 + step}  # fmt: skip
            add_event(session, job_id, f"Step {step}/{of}: training loss", metrics=told)
            if step % 15 == 0:
                measured = {"step": step, "total_steps": of, "full_valid_loss": 3.4 / (1 + step / 7)}
                add_event(session, job_id, f"Step {step}/{of}: validation loss", metrics=measured)


def change(gateway: Gateway, job_id: str, **values: Any) -> None:
    with gateway.database.session() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(**values))


def say(gateway: Gateway, job_id: str, message: str, level: Any = "info", **data: Any) -> None:
    with gateway.database.session() as session:
        add_event(session, job_id, message, level=level, data=data or None)


def test_a_form_is_checked_then_started_and_the_job_paused_resumed_and_cancelled(
    gateway: Gateway, open_page: OpenPage, axe: FindFaults, screenshot: Screenshot
) -> None:
    add_file(gateway, text=LINES)
    page = open_page(f"{gateway.url}/train")
    page.fill("#train-suffix", "keeper")
    page.get_by_text("Hyperparameters").click()
    page.fill("#train-n_epochs", "2")
    page.get_by_role("button", name="Run preflight check").dblclick()
    expect(page.locator(".train-preflight")).to_contain_text("Ready to start", timeout=150_000)
    expect(page.locator("h1")).to_be_visible()  # what comes while another is at work changes nothing
    expect(page.locator(".train-answers")).to_contain_text("Fits in memory")
    expect(page.locator(".train-answers")).to_contain_text("Can be served")
    expect(page.locator(".train-preflight .data-figures")).to_contain_text("Epochs: 2")
    assert axe(page) == []
    screenshot(page, "train-preflight")

    page.locator("#train-start").dblclick()
    page.evaluate("for (let n = 0; n < 3; n++) document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#train-job")).to_contain_text("ft:base:personal:keeper:")
    (job,) = gateway.http.get("/v1/fine_tuning/jobs").json()["data"]
    assert job["hyperparameters"]["n_epochs"] == 2
    assert job["tuneloop"]["settings"] == {"validation_fraction": 0.1}
    expect(page).to_have_url(re.compile(f"job={job['id']}"))

    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("#train-suffix")).to_be_visible()

    change(gateway, job["id"], status="queued")
    expect(page.locator("section[data-job]")).to_contain_text("#1 in queue")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("section[data-job]")).to_contain_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("section[data-job]")).to_contain_text("#1 in queue")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("section[data-job]")).to_contain_text("Cancelled")


def test_curves_grow_while_the_job_runs_and_stay_over_a_refresh(
    gateway: Gateway, open_page: OpenPage, axe: FindFaults, screenshot: Screenshot
) -> None:
    job_id = running_job(gateway, estimated_finish=now_s() + 600)
    page = open_page(f"{gateway.url}/train?job={job_id}")
    expect(page.locator(".tl-page-train")).to_contain_text("The loss curve appears after the first step")
    tell(gateway, job_id, 1, 20)
    expect(page.locator("#train-steps")).to_have_text("Step 20 of 60")
    expect(page.locator(".curve svg[role=img]").first).to_have_attribute("aria-label", re.compile("at step 20"))
    page.locator("#train-panels summary").click()
    tell(gateway, job_id, 21, 45)
    say(gateway, job_id, "The loss has stopped falling. Set `n_epochs` to 2.", "warn", **HEALTH)
    expect(page.locator("#train-steps")).to_have_text("Step 45 of 60")
    expect(page.locator(".train-health")).to_contain_text("plateau")
    expect(page.locator(".curve-marked")).to_have_text("plateau")
    expect(page.locator("#train-panels")).to_have_attribute("open", "")
    expect(page.locator("section[data-job]")).to_contain_text("min left")
    assert axe(page) == []
    screenshot(page, "train-running")
    page.reload()
    expect(page.locator("#train-steps")).to_have_text("Step 45 of 60")

    with gateway.database.session() as session:
        session.add(
            JobCheckpointRow(
                id=new_id("ftckpt-"), job_id=job_id, created_at=now_s(), step_number=45, adapter_id="adapter-1",
                model=f"{TUNED}:ckpt-step-45", metrics={"train_loss": 0.4}
            )
        )  # fmt: skip
    change(gateway, job_id, status="succeeded", fine_tuned_model=TUNED, finished_at=now_s(), trained_tokens=12_345)
    compare = page.get_by_role("link", name="Compare with parent")
    expect(compare).to_have_attribute("href", "./?models=base%2Cft%3Abase%3Apersonal%3Akeeper%3Akkkkkkkk")
    expect(page.get_by_role("row", name="ckpt-step-45")).to_be_visible()
    screenshot(page, "train-succeeded")


def test_a_failed_job_says_why_and_what_to_do_in_chinese_on_a_phone(
    gateway: Gateway, open_page: OpenPage, axe: FindFaults, screenshot: Screenshot
) -> None:
    job_id = running_job(gateway)
    tell(gateway, job_id, 1, 30)
    error = {"code": "diverged", "message": "The loss is NaN at step 30. Lower `learning_rate` <b>to</b> 1e-4.",
             "param": "tuneloop.learning_rate"}  # fmt: skip
    say(gateway, job_id, error["message"], "error")
    change(gateway, job_id, status="failed", error=error, finished_at=now_s())
    page = open_page(f"{gateway.url}/train?job={job_id}", **PHONE)
    expect(page.locator("section[data-job] .tl-problem")).to_contain_text("训练失败")
    expect(page.locator("section[data-job] .tl-problem")).to_contain_text("<b>to</b> 1e-4")
    expect(page.locator("section[data-job]")).to_contain_text("tuneloop.learning_rate")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    screenshot(page, "train-failed-zh-dark-phone")


def test_what_cannot_start_is_told_before_it_is_started(gateway: Gateway, open_page: OpenPage) -> None:
    add_file(gateway, text="\n".join(LINES.splitlines()[:3]))
    page = open_page(f"{gateway.url}/train")
    page.get_by_text("QLoRA and memory").click()
    page.fill("#train-r", "64")
    page.get_by_role("button", name="Run preflight check").click()
    expect(page.locator(".train-preflight")).to_contain_text("can't start with these settings", timeout=150_000)
    expect(page.locator(".train-problems")).to_contain_text("the engine supports ranks up to 16")
    expect(page.locator(".train-problems")).to_contain_text("must have at least 10 examples")
    expect(page.locator(".train-answers")).to_contain_text("Can't be served")
    expect(page.locator("#train-start")).to_be_disabled()
    page.fill("#train-r", "16")
    page.locator("#train-r").blur()
    expect(page.locator(".train-preflight")).to_contain_text("Run the check again")
    assert gateway.http.get("/v1/fine_tuning/jobs").json()["data"] == []


def test_the_automatic_method_is_that_of_the_file_even_while_the_engine_is_down(
    gateway: Gateway, open_page: OpenPage
) -> None:
    gateway.services.engine.state = EngineState.DEAD  # type: ignore[attr-defined]
    file_id = add_file(gateway, text=PREFERENCES)
    page = open_page(f"{gateway.url}/train?file={file_id}")
    page.get_by_role("button", name="Run preflight check").click()
    expect(page.locator("#train-start")).to_be_enabled(timeout=150_000)
    page.locator("#train-start").click()
    expect(page.locator("section[data-job]")).to_contain_text("dpo")
    (job,) = gateway.http.get("/v1/fine_tuning/jobs").json()["data"]
    assert job["method"]["type"] == "dpo"


def test_two_tabs_see_the_same_job_each_in_its_own_way(gateway: Gateway, open_page: OpenPage) -> None:
    job_id = running_job(gateway, status="queued")
    one, other = open_page(f"{gateway.url}/train?job={job_id}"), open_page(f"{gateway.url}/train", locale="zh-CN")
    expect(other.locator(".train-table")).to_contain_text("排队中")
    one.get_by_role("button", name="Pause").click()
    expect(one.locator("section[data-job]")).to_contain_text("Paused")
    expect(other.locator(".train-table")).to_contain_text("已暂停")
    expect(other.locator("#train-job")).to_have_count(0)


def test_pages_that_were_started_again_go_on_showing_the_job_and_the_form(tmp_path: Path, open_page: OpenPage) -> None:
    port, own = free_port(), Pages("", free_port())
    with paged_gateway(tmp_path, own) as gateway:
        gateway.services.runner._loop._work = nobody_trains  # type: ignore[method-assign]
        job_id = running_job(gateway, status="paused")
        tell(gateway, job_id, 1, 10)
        with pages_on(port, own):
            page = open_page(f"http://127.0.0.1:{port}/train?job={job_id}", locale="zh-CN")
            expect(page.locator("#train-steps")).to_have_text("第 10 步，共 60 步")
            page.fill("#train-suffix", "kept")
        with pages_on(port, own):
            tell(gateway, job_id, 11, 12)
            expect(page.locator("#train-steps")).to_have_text("第 12 步，共 60 步", timeout=60_000)
            expect(page.locator("#train-suffix")).to_have_value("kept")


@contextmanager
def pages_on(port: int, pages: Pages) -> Iterator[None]:
    """The pages on this port, for the gateway of `pages`."""
    app = create_apart_app(f"http://127.0.0.1:{pages.api_port}", allowed_hosts=["127.0.0.1"])
    server = HTTPServer(app, listen("127.0.0.1", port))
    yield
    server.stop()


def test_an_empty_server_leads_to_the_data_page_and_an_unknown_job_is_told(
    gateway: Gateway, open_page: OpenPage, axe: FindFaults
) -> None:
    page = open_page(f"{gateway.url}/train?job=ftjob-none")
    expect(page.locator(".tl-empty-state")).to_contain_text("No training files yet")
    expect(page.locator(".tl-notice")).to_contain_text("Job not found")
    expect(page.get_by_role("link", name="Upload examples")).to_have_attribute("href", "data")
    assert axe(page) == []
