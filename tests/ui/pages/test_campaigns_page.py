"""The campaigns page without a browser: an address whose campaign is gone."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.ui.lone_page import lone_page
from ui.pages.campaigns.page import CampaignsPage, CampaignsSession
from ui.words.i18n import Language

SPRING = {
    "id": "camp_1", "name": "Spring", "models": ["a", "b"], "status": "open",
    "answers": {"done": 1, "total": 2}, "votes": {"done": 0, "total": 1},
}  # fmt: skip


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/v1/campaigns":
        return httpx.Response(200, json={"data": [SPRING]})
    if request.url.path.startswith("/v1/campaigns/"):
        error = {"message": "No campaign has that id.", "type": "invalid_request_error", "code": "campaign_not_found"}
        return httpx.Response(404, json={"error": error})
    return httpx.Response(200, json={"data": []})


@pytest.mark.parametrize(("language", "words"), [("en", "no longer exists"), ("zh", "不存在或已删除")])
def test_an_unknown_campaign_is_told_above_the_list_of_those_there_are(language: Language, words: str) -> None:
    session = CampaignsSession(language=language)
    page = lone_page(CampaignsPage, "campaigns", answer)
    shown = asyncio.run(page.open(session, "", {"campaign": "camp_x"}))
    html = "".join(str(update.get("value")) for update in shown.values())
    assert words in html
    assert "Spring" in html
