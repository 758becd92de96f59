"""Messages as people read them: bodies for the incoming webhooks of chat services, and e-mail.

Names of jobs and texts of errors come from users, models and logs: each service gets them in a form in which it reads
no markup, no mention and no link. The only link is that of the job, which the service itself writes.
"""

import re
from dataclasses import dataclass
from typing import Any, Self

MAX_TITLE, MAX_TEXT = 120, 1800  # characters: twice as many, after escapes, are below the limits of Discord
MOST_SLACK, MOST_SLACK_HEADER = 3000, 150  # characters of a text and of a header
MOST_LINES = 20  # of a card of Teams, which may have 28 kB
_DISCORD_MARKUP = re.compile(r"([\\*_~`|>#\[\]()<@:.!+-])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
_OPEN = "Open the job"


@dataclass(frozen=True)
class PlainMessage:
    """A message in words. `link`: page of the job, if the service knows the address of its dashboard."""

    title: str
    text: str
    link: str | None = None

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """Return the words of a message: `type` and `data`."""
        data = content["data"]
        if content["type"] == "ping":
            return cls("Test message of CalibRL", f"Project {data['project']} sends its messages here.")
        alert, name = data.get("alert"), _plain(data["name"])
        state = f"{alert['rule']} {alert['state']}" if alert else content["type"].removeprefix("job.")
        reason = f" ({data['reason']})" if data.get("reason") else ""
        text = "\n".join(filter(None, (_plain(data.get("message") or ""), f"Project {data['project']}")))
        return cls(_cut(f"{name}: {state}{reason}", MAX_TITLE), _cut(text, MAX_TEXT), data.get("link"))


def slack(notice: PlainMessage) -> dict[str, Any]:
    """Return the body for an incoming webhook of Slack. `plain_text` has no markup; `&`, `<` and `>` are escaped in all
    text objects (docs.slack.dev: formatting message text)."""
    title, text = _entities(notice.title), _entities(notice.text)
    if len(text) > MOST_SLACK:
        text = _entities(_cut(notice.text, MOST_SLACK // len("&amp;")))
    head = "header" if len(title) <= MOST_SLACK_HEADER else "section"
    blocks: list[dict[str, Any]] = [_slack_text(head, title), _slack_text("section", text)]
    if notice.link:
        link = {"type": "mrkdwn", "text": f"<{notice.link}|{_OPEN}>"}
        blocks.append({"type": "section", "text": link})
    return {"text": title, "blocks": blocks}


def _slack_text(block: str, text: str) -> dict[str, Any]:
    return {"type": block, "text": {"type": "plain_text", "text": text, "emoji": False}}


def teams(notice: PlainMessage) -> dict[str, Any]:
    """Return the body for a workflow of Teams: an adaptive card. A `TextRun` has no Markdown, unlike a `TextBlock`
    (adaptivecards.io)."""
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [_teams_text(notice.title, weight="bolder"), *map(_teams_text, notice.text.split("\n", MOST_LINES))],
    }
    if notice.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": _OPEN, "url": notice.link}]
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return {"type": "message", "attachments": [attachment]}


def _teams_text(text: str, weight: str = "default") -> dict[str, Any]:
    run = {"type": "TextRun", "text": text or " ", "weight": weight}
    return {"type": "RichTextBlock", "inlines": [run]}


def discord(notice: PlainMessage) -> dict[str, Any]:
    """Return the body for a webhook of Discord. Markup is escaped, and `allowed_mentions` keeps mentions from people
    (discord.com/developers: webhook, allowed mentions)."""
    embed = {"title": _escaped(notice.title), "description": _escaped(notice.text)}
    if notice.link:
        embed["url"] = notice.link
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def _escaped(text: str) -> str:
    return _DISCORD_MARKUP.sub(r"\\\1", text)


def _entities(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str) -> str:
    """Return text without control characters and marks that change its direction."""
    return _CONTROL.sub(" ", text)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
