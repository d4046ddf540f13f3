"""The campaigns page's HTML: the list, and one campaign with its progress, results and invitations.

Every foreign word is escaped. Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ui.words.i18n import Language, text

Campaign = Mapping[str, Any]


def said(language: Language, key: str, **values: object) -> str:
    """A text of this page, escaped."""
    return escape(text(language, f"campaigns.{key}", **values))


def heading(campaign: Campaign | None, language: Language) -> str:
    """The page's title; in one campaign its name with the way back."""
    if campaign is None:
        title = f'<h1 class="tl-title">{said(language, "title")}</h1>'
        return f'<div>{title}<p class="tl-muted">{said(language, "intro")}</p></div>'
    back = f'<p><a class="camp-back" href="campaigns">← {said(language, "all")}</a></p>'
    return f'<div>{back}<h1 class="tl-title">{escape(str(campaign["name"]))}</h1></div>'


def listing(campaigns: Sequence[Campaign], language: Language) -> str:
    """Every campaign in a row with how far it is."""
    if not campaigns:
        none = said(language, "none")
        return f'<div class="tl-empty-state"><h2>{none}</h2><p>{said(language, "none_info")}</p></div>'
    head = "".join(f'<th scope="col">{said(language, key)}</th>' for key in ("name", "status", "answers", "votes"))
    rows = "".join(_row(campaign, language) for campaign in campaigns)
    label = said(language, "list")
    return (
        f'<section class="live-card"><h2 class="live-h2">{label}</h2>'
        f'<div class="live-scroll" tabindex="0" role="group" aria-label="{label}">'
        f'<table class="live-table camp-list"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(campaign: Campaign, language: Language) -> str:
    link = f"campaigns?campaign={escape(campaign['id'])}"
    models = ", ".join(campaign["models"])
    return (
        f'<tr><th scope="row"><a href="{link}">{escape(str(campaign["name"]))}</a>'
        f'<small class="live-name">{escape(models)}</small></th><td>{_chip(campaign, language)}</td>'
        f"<td>{_progress(campaign['answers'], language, 'answers')}</td>"
        f"<td>{_progress(campaign['votes'], language, 'votes')}</td></tr>"
    )


def _chip(campaign: Campaign, language: Language) -> str:
    status = campaign["status"]
    return f'<span class="camp-chip camp-{escape(status)}">{said(language, f"status.{status}")}</span>'


def _progress(counts: Mapping[str, int], language: Language, key: str, more: str = "") -> str:
    done, total = counts["done"] + counts.get("failed", 0), counts["total"]
    words = said(language, "of", done=f"{done:,}", total=f"{total:,}")
    return (
        f'<div class="camp-progress"><span>{words}{more}</span><progress class="live-bar" value="{done}" '
        f'max="{max(total, 1)}" aria-label="{said(language, key)}"></progress></div>'
    )


def progress(campaign: Campaign, failed: Sequence[Mapping[str, Any]], now_s: float, language: Language) -> str:
    """How far answers and votes are, what holds them up, and the campaign's buttons."""
    facts = said(
        language, "facts", prompts=campaign["prompts"], items=campaign["items"], raters=campaign["raters_per_item"]
    )
    models = "".join(f'<li class="live-name">{escape(name)}</li>' for name in campaign["models"])
    answers = _progress(campaign["answers"], language, "answers", _estimate(campaign, now_s, language))
    created = f'<time data-unix="{campaign["created_at"]}"></time>'
    return (
        f'<section class="live-card"><div class="live-row live-spread">'
        f'<h2 class="live-h2">{said(language, "progress")} {_chip(campaign, language)}</h2>'
        f'<div class="live-row">{_buttons(campaign, language)}</div></div>'
        f'<p class="tl-muted">{facts} · {said(language, "created_at")} {created}</p>'
        f'<ul class="camp-models">{models}</ul>'
        f'<dl class="camp-two"><div><dt>{said(language, "answers")}</dt><dd>{answers}</dd></div>'
        f"<div><dt>{said(language, 'votes')}</dt><dd>{_progress(campaign['votes'], language, 'votes')}</dd></div></dl>"
        f"{_trouble(campaign, failed, language)}</section>"
    )


def _estimate(campaign: Campaign, now_s: float, language: Language) -> str:
    finish = campaign.get("estimated_finish")
    if finish is None or campaign["status"] != "generating":
        return ""
    minutes = round((finish - now_s) / 60)
    words = said(language, "estimate", minutes=minutes) if minutes >= 1 else said(language, "estimate_soon")
    return f" · {words}"


def _buttons(campaign: Campaign, language: Language) -> str:
    is_over = campaign["status"] in ("closed", "failed")
    step = "reopen" if is_over else "close"
    sure = "" if is_over else f' data-confirm="{said(language, "close_sure")}"'
    buttons = (
        f'<button type="button" class="live-button live-small" id="camp-{step}" data-do="{step}"{sure}>'
        f"{said(language, step)}</button>"
    )
    if campaign["votes"]["done"] == 0:
        buttons += (
            f'<button type="button" class="live-button live-small live-danger" id="camp-delete" data-do="delete" '
            f'data-confirm="{said(language, "delete_sure")}">{said(language, "delete")}</button>'
        )
    return buttons


def _trouble(campaign: Campaign, failed: Sequence[Mapping[str, Any]], language: Language) -> str:
    parts = []
    if campaign.get("error"):
        reason = said(language, "problem", reason=campaign["error"].get("message", ""))
        parts.append(f'<div class="tl-problem" role="alert"><p>{reason}</p></div>')
    if count := campaign["answers"].get("failed", 0):
        reasons = "".join(
            f'<li><span class="live-name">{escape(str(answer.get("model")))}</span>: '
            f"{escape(str((answer.get('error') or {}).get('message', '')))}</li>"
            for answer in failed
        )
        words = said(language, "failed_answers", count=count)
        parts.append(f'<details class="tl-notice"><summary>{words}</summary><ul>{reasons}</ul></details>')
    return "".join(parts)


def results(campaign: Campaign, agreement: Mapping[str, Any] | None, language: Language) -> str:
    """What has come out, with the way to the figures."""
    if not campaign["votes"]["done"]:
        return (
            f'<section class="live-card"><h2 class="live-h2">{said(language, "results")}</h2>'
            f"<p>{said(language, 'results_none')}</p></section>"
        )
    words = ""
    if agreement is not None:
        alpha, items = agreement["alpha"], agreement["items"]
        key = "agreement_none" if alpha is None else "agreement"
        values = {"items": items} | ({} if alpha is None else {"alpha": f"{alpha:.2f}"})
        words = f"<p>{said(language, key, **values)}</p>"
    raters = "".join(
        f"<li>{escape(str(one['rater']))} <b>{one['votes']}</b></li>" for one in campaign.get("raters", [])
    )
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "results")}</h2>{words}'
        f'<p class="live-label">{said(language, "raters")}</p><ul class="camp-raters">{raters}</ul>'
        f'<a class="live-button live-primary" href="leaderboard?campaign={escape(campaign["id"])}">'
        f"{said(language, 'to_leaderboard')}</a></section>"
    )


def invitations(
    campaign: Campaign,
    listed: Sequence[Mapping[str, Any]],
    made: Sequence[Mapping[str, Any]],
    number: int,
    now_s: float,
    language: Language,
) -> str:
    """The form that makes a link, the links made just now, and all invitations.

    number: how many links were made here, so that the form is empty for the next.
    """
    form = (
        f'<form class="camp-invite" data-do="invite" data-keep="campaigns.invite.{number}">'
        f'<div><label class="live-label" for="camp-rater">{said(language, "rater")}</label>'
        f'<input class="live-field" id="camp-rater" name="rater" maxlength="128" '
        f'placeholder="{said(language, "rater_placeholder")}"></div>'
        f'<button class="live-button live-primary" id="camp-invite">{said(language, "make_link")}</button></form>'
    )
    links = "".join(_link(one, number, language) for one in reversed(made))
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "invite")}</h2>{form}'
        f"{links}{_invited(campaign, listed, now_s, language)}</section>"
    )


def _link(invitation: Mapping[str, Any], number: int, language: Language) -> str:
    path = escape(invitation["path"].lstrip("/"))
    once = said(language, "link_once", rater=invitation["rater"])
    return (
        f'<div class="camp-link" role="status" data-forget="campaigns.invite.{number - 1}">'
        f'<p>{once}</p><div class="live-row"><code data-address="{path}"></code>'
        f'<button type="button" class="live-button live-small" id="camp-copy-{escape(invitation["id"])}" '
        f'data-copy="{path}" data-copied="✓ {said(language, "copied")}">{said(language, "copy")}</button></div></div>'
    )


def _invited(campaign: Campaign, listed: Sequence[Mapping[str, Any]], now_s: float, language: Language) -> str:
    if not listed:
        return f'<p class="live-hint">{said(language, "no_invitations")}</p>'
    votes = {one["rater"]: one["votes"] for one in campaign.get("raters", [])}
    head = "".join(f'<th scope="col">{said(language, key)}</th>' for key in ("rater", "votes", "state", "expires"))
    rows = "".join(_invitation(one, votes.get(one["rater"], 0), now_s, language) for one in listed)
    label = said(language, "invited")
    return (
        f'<div class="live-scroll" tabindex="0" role="group" aria-label="{label}"><table class="live-table">'
        f'<caption class="live-hidden">{label}</caption><thead><tr>{head}<td></td></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _invitation(invitation: Mapping[str, Any], votes: int, now_s: float, language: Language) -> str:
    state = "revoked" if invitation.get("revoked_at") else "expired" if invitation["expires_at"] <= now_s else "valid"
    rater = str(invitation["rater"])
    revoke = (
        f'<button type="button" class="live-button live-small live-danger" data-do="revoke" '
        f'id="camp-revoke-{escape(invitation["id"])}" data-invitation="{escape(invitation["id"])}" '
        f'aria-label="{said(language, "revoke_of", rater=rater)}" '
        f'data-confirm="{said(language, "revoke_sure", rater=rater)}">{said(language, "revoke")}</button>'
    )
    return (
        f'<tr><th scope="row">{escape(rater)}</th><td>{votes}</td>'
        f'<td class="camp-state">{said(language, f"state.{state}")}</td>'
        f'<td><time data-unix="{invitation["expires_at"]}"></time></td>'
        f"<td>{revoke if state == 'valid' else ''}</td></tr>"
    )


def notice(key: str, language: Language, forget: str = "", **values: object) -> str:
    """One sentence about what was just done, or why not; `forget` names the form that was sent for good."""
    sign = f' data-forget="{escape(forget)}"' if forget else ""
    return f'<div class="tl-notice" role="status"{sign}><p>{said(language, key, **values)}</p></div>' if key else ""
