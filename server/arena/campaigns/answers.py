"""The queue of answers to generate, and their results: one transaction per answer, so a crash loses no finished one.

A prompt's row is updated first, so that two models that finish it at the same time see each other's result.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, and_, exists, or_, select, update
from sqlalchemy.orm import Session

from server.access.keys import Caller
from server.arena.campaigns.store import LEFT_OUT, has_items
from server.storage.list_pages import fetch_page
from server.storage.tables import CampaignAnswerRow, CampaignItemRow, CampaignPromptRow, CampaignRow, now_s

Error = dict[str, Any]
"""OpenAI's `message`, `type`, `param` and `code`."""
_NO_SESSION_SYNC = {"synchronize_session": False}
"""For updates of rows that the session hasn't loaded."""


@dataclass(frozen=True)
class AnswerTask:
    """One answer to be generated."""

    number: int
    campaign_id: str
    position: int
    model: str
    messages: list[Any]
    sampling: dict[str, Any]
    caller: Caller
    """The campaign's creator, whose permissions apply."""


def find_pending(
    session: Session, limit: int, *, active: Collection[int], paused: Collection[tuple[str, str]]
) -> list[AnswerTask]:
    """Return the next answers to generate. paused: pairs of campaign and model to skip now."""
    answer = CampaignAnswerRow
    query = (
        select(answer, CampaignPromptRow.messages, CampaignRow)
        .join(CampaignRow, CampaignRow.id == answer.campaign_id)
        .join(
            CampaignPromptRow,
            and_(CampaignPromptRow.campaign_id == answer.campaign_id, CampaignPromptRow.position == answer.position),
        )
        .where(answer.status == "pending", CampaignRow.status == "generating", answer.number.not_in(active))
        .where(*(or_(answer.campaign_id != campaign, answer.model != model) for campaign, model in paused))
        .order_by(answer.number)
        .limit(limit)
    )
    return [_build_task(row, messages, campaign) for row, messages, campaign in session.execute(query)]


def store_answer(session: Session, task: AnswerTask, answer: dict[str, Any]) -> None:
    """Store the answer; pairs that it completes can be rated from now on."""
    if _finish_answer(session, task, {"status": "done", "answer": answer}):
        _add_to_items(session, task, 1)


def store_failure(session: Session, task: AnswerTask, error: Error, answer: dict[str, Any] | None = None) -> None:
    """Store why there is no answer that can be rated; its pairs are left out."""
    if _finish_answer(session, task, {"status": "failed", "error": error, "answer": answer}):
        _add_to_items(session, task, LEFT_OUT)


def fail_all_pending(session: Session, task: AnswerTask, error: Error) -> None:
    """Fail all answers of the campaign that the task's model hasn't generated yet."""
    answer, item, prompt = CampaignAnswerRow, CampaignItemRow, CampaignPromptRow
    pending = answer.campaign_id == task.campaign_id, answer.model == task.model, answer.status == "pending"
    positions = select(answer.position).where(*pending)
    prompts = prompt.campaign_id == task.campaign_id, prompt.position.in_(positions)
    # Prompts are locked first and in order, here as in `_finish_answer`, so that there is no deadlock.
    session.execute(select(prompt.position).where(*prompts).order_by(prompt.position).with_for_update())
    session.execute(
        update(prompt).where(*prompts).values(answered=prompt.answered + 1), execution_options=_NO_SESSION_SYNC
    )
    concerned = item.campaign_id == task.campaign_id, item.position.in_(positions), _includes_model(task.model)
    session.execute(
        update(item).where(*concerned).values(answers=item.answers + LEFT_OUT), execution_options=_NO_SESSION_SYNC
    )
    failed = {"status": "failed", "error": error, "finished_at": now_s()}
    session.execute(update(answer).where(*pending).values(failed), execution_options=_NO_SESSION_SYNC)


def count_attempt(session: Session, task: AnswerTask) -> int:
    """Count a failed attempt; return how many there are now."""
    counted = (
        update(CampaignAnswerRow)
        .where(CampaignAnswerRow.number == task.number)
        .values(attempts=CampaignAnswerRow.attempts + 1)
        .returning(CampaignAnswerRow.attempts)
    )
    return session.scalar(counted) or 0


def set_error(session: Session, campaign_id: str, error: Error | None) -> None:
    """Set what the campaign's answers are waiting for; None clears it."""
    running = CampaignRow.id == campaign_id, CampaignRow.status == "generating"
    session.execute(update(CampaignRow).where(*running).values(error=error))


def finish_campaigns(session: Session) -> None:
    """Open the campaigns whose answers are complete; fail those without any pair that can be rated."""
    pending = exists().where(CampaignAnswerRow.campaign_id == CampaignRow.id, CampaignAnswerRow.status == "pending")
    finished = select(CampaignRow.id).where(CampaignRow.status == "generating", ~pending)
    for campaign_id in session.scalars(finished).all():
        ended = (
            {"status": "open", "error": None}
            if has_items(session, campaign_id)
            else {"status": "failed", "error": _build_no_answers_error(session, campaign_id)}
        )
        session.execute(
            update(CampaignRow).where(CampaignRow.id == campaign_id, CampaignRow.status == "generating").values(ended)
        )


def list_answers(
    session: Session, campaign_id: str, *, after: str | None, limit: int, ascending: bool, status: str | None
) -> tuple[list[dict[str, Any]], bool]:
    """Return a page of a campaign's answers as API objects, prompt by prompt, and whether there are more."""
    where = [CampaignAnswerRow.campaign_id == campaign_id]
    visible = CampaignAnswerRow.status == status if status else None
    rows, has_more = fetch_page(
        session, CampaignAnswerRow, *where, after=after, limit=limit, visible=visible, ascending=ascending
    )
    prompts = select(CampaignPromptRow).where(
        CampaignPromptRow.campaign_id == campaign_id, CampaignPromptRow.position.in_({row.position for row in rows})
    )
    messages = {prompt.position: prompt.messages for prompt in session.scalars(prompts)}
    return [answer_object(row, messages[row.position]) for row in rows], has_more


def answer_object(row: CampaignAnswerRow, messages: list[Any]) -> dict[str, Any]:
    """Return the answer as the API's object; what doesn't exist yet is null."""
    answer = row.answer or {}
    names = ("content", "finish_reason", "completion_tokens", "time_to_first_token_s", "duration_s")
    return {
        "id": row.id,
        "object": "campaign.answer",
        "prompt": row.position,
        "messages": messages,
        "model": row.model,
        "status": row.status,
        "error": row.error,
        "finished_at": row.finished_at,
        **{name: answer.get(name) for name in names},
    }


def _build_task(row: CampaignAnswerRow, messages: list[Any], campaign: CampaignRow) -> AnswerTask:
    caller = Caller(campaign.created_by, campaign.project, is_admin=False)
    return AnswerTask(row.number, row.campaign_id, row.position, row.model, messages, campaign.sampling, caller)


def _finish_answer(session: Session, task: AnswerTask, values: dict[str, Any]) -> bool:
    """Store the end of a pending answer; return False if its campaign was deleted meanwhile."""
    of_prompt = CampaignPromptRow.campaign_id == task.campaign_id, CampaignPromptRow.position == task.position
    session.execute(update(CampaignPromptRow).where(*of_prompt).values(answered=CampaignPromptRow.answered + 1))
    pending = CampaignAnswerRow.number == task.number, CampaignAnswerRow.status == "pending"
    ended = session.execute(update(CampaignAnswerRow).where(*pending).values(finished_at=now_s(), **values))
    return cast("CursorResult[Any]", ended).rowcount == 1


def _add_to_items(session: Session, task: AnswerTask, change: int) -> None:
    item = CampaignItemRow
    concerned = (
        item.campaign_id == task.campaign_id,
        item.position == task.position,
        _includes_model(task.model),
    )
    session.execute(update(item).where(*concerned).values(answers=item.answers + change))


def _includes_model(model: str) -> ColumnElement[bool]:
    return or_(CampaignItemRow.model_a == model, CampaignItemRow.model_b == model)


def _build_no_answers_error(session: Session, campaign_id: str) -> Error:
    failed = CampaignAnswerRow.campaign_id == campaign_id, CampaignAnswerRow.status == "failed"
    first = session.scalar(select(CampaignAnswerRow).where(*failed).order_by(CampaignAnswerRow.number).limit(1))
    reason = f" First failure, {first.model}: {first.error['message']}" if first and first.error else ""
    return {
        "message": f"No pair can be rated: every pair has a failed answer.{reason} Fix the cause, then generate the "
        f"answers again with POST /v1/campaigns/{campaign_id}/reopen.",
        "type": "server_error",
        "param": None,
        "code": "no_answers",
    }
