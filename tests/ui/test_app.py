"""The pages on an application: they leave its other routes alone and call nobody else."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ui import mount


@pytest.fixture
def browser(unused_url: str) -> TestClient:
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    mount(app, unused_url, example_prompts=["Who wrote Hamlet?"])
    return TestClient(app)


def test_routes_that_were_there_keep_their_place(browser: TestClient) -> None:
    assert browser.get("/healthz").json() == {"status": "ok"}
    assert "tuneloop" in browser.get("/").text


def test_the_page_loads_nothing_from_another_host(browser: TestClient) -> None:
    html = browser.get("/").text + browser.get("/theme.css").text
    loaded = re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"(https?://[^\"]+)|url\(['\"]?(https?://[^)]+)", html)
    assert [url for pair in loaded for url in pair if url and "testserver" not in url] == []


def test_telemetry_and_the_runs_page_are_off(browser: TestClient) -> None:
    config = browser.get("/config").json()
    assert config["analytics_enabled"] is False
    assert browser.get("/gradio_api/runs").status_code == 404


def test_handlers_are_not_offered_as_an_api(browser: TestClient) -> None:
    assert browser.get("/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_files_are_not_taken(browser: TestClient) -> None:
    answer = browser.post("/gradio_api/upload", files={"files": ("big.txt", b"more than a byte")})
    assert answer.status_code == 413
