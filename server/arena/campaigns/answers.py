"""What is to be generated and what became of it: each answer is one transaction, so a crash loses none that is there.

Knows no engine. A prompt's row is changed first, so that two models that end with it at once see each other's end.
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
_UNSEEN = {"synchronize_session": False}
"""For changes to rows that this session hasn't read."""


@dataclass(frozen=True)
class Task:
    """One answer that is to be generated."""

    number: int
    campaign_id: str
    position: int
    model: str
    messages: list[Any]
    sampling: dict[str, Any]
    caller: Caller
    """Who made the campaign: what that one may not use isn't asked."""


def waiting(
    session: Session, limit: int, *, under_way: Collection[int], paused: Collection[tuple[str, str]]
) -> list[Task]:
    """The next answers to generate. paused: campaigns and models that are not to be asked now."""
    answer = CampaignAnswerRow
    query = (
        select(answer, CampaignPromptRow.messages, CampaignRow)
        .join(CampaignRow, CampaignRow.id == answer.campaign_id)
        .join(
            CampaignPromptRow,
            and_(CampaignPromptRow.campaign_id == answer.campaign_id, CampaignPromptRow.position == answer.position),
        )
        .where(answer.status == "pending", CampaignRow.status == "generating", answer.number.not_in(under_way))
        .where(*(or_(answer.campaign_id != campaign, answer.model != model) for campaign, model in paused))
        .order_by(answer.number)
        .limit(limit)
    )
    return [_task(row, messages, campaign) for row, messages, campaign in session.execute(query)]


def keep(session: Session, task: Task, answer: dict[str, Any]) -> None:
    """Stores the answer; pairs that are whole with it can be judged from now on."""
    if _end(session, task, {"status": "done", "answer": answer}):
        _count(session, task, 1)


def give_up(session: Session, task: Task, error: Error, answer: dict[str, Any] | None = None) -> None:
    """Stores why there is no answer that people could judge; its pairs are left out."""
    if _end(session, task, {"status": "failed", "error": error, "answer": answer}):
        _count(session, task, LEFT_OUT)


def give_up_all(session: Session, task: Task, error: Error) -> None:
    """Stores why the task's model will never answer what it hasn't answered yet in this campaign."""
    answer, item, prompt = CampaignAnswerRow, CampaignItemRow, CampaignPromptRow
    waiting = answer.campaign_id == task.campaign_id, answer.model == task.model, answer.status == "pending"
    positions = select(answer.position).where(*waiting)
    prompts = prompt.campaign_id == task.campaign_id, prompt.position.in_(positions)
    # Prompts are locked first, here as in `_end`, and in their order: no two can then wait for each other.
    session.execute(select(prompt.position).where(*prompts).order_by(prompt.position).with_for_update())
    session.execute(update(prompt).where(*prompts).values(answered=prompt.answered + 1), execution_options=_UNSEEN)
    concerned = item.campaign_id == task.campaign_id, item.position.in_(positions), _is_of(task.model)
    session.execute(update(item).where(*concerned).values(answers=item.answers + LEFT_OUT), execution_options=_UNSEEN)
    failed = {"status": "failed", "error": error, "finished_at": now_s()}
    session.execute(update(answer).where(*waiting).values(failed), execution_options=_UNSEEN)


def count_attempt(session: Session, task: Task) -> int:
    """How often it has failed by now, this time included."""
    counted = (
        update(CampaignAnswerRow)
        .where(CampaignAnswerRow.number == task.number)
        .values(attempts=CampaignAnswerRow.attempts + 1)
        .returning(CampaignAnswerRow.attempts)
    )
    return session.scalar(counted) or 0


def say(session: Session, campaign_id: str, error: Error | None) -> None:
    """Tells in the campaign what its answers wait for; None: for nothing any more."""
    running = CampaignRow.id == campaign_id, CampaignRow.status == "generating"
    session.execute(update(CampaignRow).where(*running).values(error=error))


def end_finished(session: Session) -> None:
    """Opens the campaigns whose answers are all there, and fails those of which no pair can be judged."""
    pending = exists().where(CampaignAnswerRow.campaign_id == CampaignRow.id, CampaignAnswerRow.status == "pending")
    finished = select(CampaignRow.id).where(CampaignRow.status == "generating", ~pending)
    for campaign_id in session.scalars(finished).all():
        ended = (
            {"status": "open", "error": None}
            if has_items(session, campaign_id)
            else {"status": "failed", "error": _why(session, campaign_id)}
        )
        session.execute(
            update(CampaignRow).where(CampaignRow.id == campaign_id, CampaignRow.status == "generating").values(ended)
        )


def page(
    session: Session, campaign_id: str, *, after: str | None, limit: int, ascending: bool, status: str | None
) -> tuple[list[dict[str, Any]], bool]:
    """Answers of a campaign as the wire has them, prompt by prompt, and whether more follow."""
    where = [CampaignAnswerRow.campaign_id == campaign_id]
    visible = CampaignAnswerRow.status == status if status else None
    rows, has_more = fetch_page(
        session, CampaignAnswerRow, *where, after=after, limit=limit, visible=visible, ascending=ascending
    )
    asked = select(CampaignPromptRow).where(
        CampaignPromptRow.campaign_id == campaign_id, CampaignPromptRow.position.in_({row.position for row in rows})
    )
    messages = {prompt.position: prompt.messages for prompt in session.scalars(asked)}
    return [answer_object(row, messages[row.position]) for row in rows], has_more


def answer_object(row: CampaignAnswerRow, messages: list[Any]) -> dict[str, Any]:
    """The answer on the wire; what isn't there yet is null."""
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


def _task(row: CampaignAnswerRow, messages: list[Any], campaign: CampaignRow) -> Task:
    caller = Caller(campaign.created_by, campaign.project, is_admin=False)
    return Task(row.number, row.campaign_id, row.position, row.model, messages, campaign.sampling, caller)


def _end(session: Session, task: Task, values: dict[str, Any]) -> bool:
    """Whether the answer was still to come: not if its campaign was deleted meanwhile."""
    of_prompt = CampaignPromptRow.campaign_id == task.campaign_id, CampaignPromptRow.position == task.position
    session.execute(update(CampaignPromptRow).where(*of_prompt).values(answered=CampaignPromptRow.answered + 1))
    pending = CampaignAnswerRow.number == task.number, CampaignAnswerRow.status == "pending"
    ended = session.execute(update(CampaignAnswerRow).where(*pending).values(finished_at=now_s(), **values))
    return cast("CursorResult[Any]", ended).rowcount == 1


def _count(session: Session, task: Task, change: int) -> None:
    item = CampaignItemRow
    concerned = (
        item.campaign_id == task.campaign_id,
        item.position == task.position,
        _is_of(task.model),
    )
    session.execute(update(item).where(*concerned).values(answers=item.answers + change))


def _is_of(model: str) -> ColumnElement[bool]:
    return or_(CampaignItemRow.model_a == model, CampaignItemRow.model_b == model)


def _why(session: Session, campaign_id: str) -> Error:
    failed = CampaignAnswerRow.campaign_id == campaign_id, CampaignAnswerRow.status == "failed"
    first = session.scalar(select(CampaignAnswerRow).where(*failed).order_by(CampaignAnswerRow.number).limit(1))
    told = f" The first failure, of {first.model}: {first.error['message']}" if first and first.error else ""
    return {
        "message": f"No pair can be judged: an answer of each failed.{told} Mend that, and POST "
        f"/v1/campaigns/{campaign_id}/reopen has them generated again.",
        "type": "server_error",
        "param": None,
        "code": "no_answers",
    }
