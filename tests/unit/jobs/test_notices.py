"""Messages for chat services: their shapes, and hostile names and texts that must stay text."""

import json
from typing import Any

import pytest

from jobs.webhooks import notices
from jobs.webhooks.notices import PlainMessage

LINK = "https://lab.example.com/job?id=1"


def content(**data: Any) -> dict[str, Any]:
    about = {"name": "run", "project": "vision", "message": "boom", "reason": "crashed", "link": LINK}
    return {"type": "job.failed", "data": about | data}


def test_a_notice_says_what_happened() -> None:
    assert PlainMessage.of(content()) == PlainMessage("run: failed (crashed)", "boom\nProject vision", LINK)
    alert = {"rule": "low", "state": "fired", "step": 4}
    fired = PlainMessage.of({"type": "job.health", "data": content(alert=alert, reason=None)["data"]})
    assert fired.title == "run: low fired"
    ping = PlainMessage.of({"type": "ping", "data": {"project": "vision"}})
    assert ping.text == "Project vision sends its messages here." and ping.link is None


def test_slack_gets_plain_text_without_control_characters() -> None:
    body = notices.slack(PlainMessage.of(content(name="<!channel> & *b*", message="<https://evil.example|click>")))
    assert body["text"] == "&lt;!channel&gt; &amp; *b*: failed (crashed)"
    head, text, link = body["blocks"]
    assert (head["type"], head["text"]) == ("header", {"type": "plain_text", "text": body["text"], "emoji": False})
    assert text["text"]["text"] == "&lt;https://evil.example|click&gt;\nProject vision"
    assert link["text"] == {"type": "mrkdwn", "text": f"<{LINK}|Open the job>"}


def test_long_texts_stay_below_the_limits_of_the_services() -> None:
    notice = PlainMessage.of(content(name="&" * 500, message="<\n" * 5000))
    slack = notices.slack(notice)
    assert [block["type"] for block in slack["blocks"]] == ["section", "section", "section"]  # too long for a header
    assert all(len(block["text"]["text"]) <= 3000 for block in slack["blocks"])
    assert len(json.dumps(notices.teams(notice))) < 28_000
    (embed,) = notices.discord(notice)["embeds"]
    assert len(embed["title"]) <= 256 and len(embed["description"]) <= 4096


def test_teams_gets_runs_of_text_that_have_no_markdown() -> None:
    body = notices.teams(PlainMessage.of(content(message="[click](https://evil.example) **b**")))
    (attachment,) = body["attachments"]
    assert (body["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    card = attachment["content"]
    runs = [run for block in card["body"] for run in block["inlines"]]
    kinds = {run["type"] for run in runs}, {block["type"] for block in card["body"]}
    assert kinds == ({"TextRun"}, {"RichTextBlock"})
    texts = [run["text"] for run in runs]
    assert texts == ["run: failed (crashed)", "[click](https://evil.example) **b**", "Project vision"]
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open the job", "url": LINK}]


def test_discord_gets_escaped_markup_and_mentions_no_one() -> None:
    body = notices.discord(
        PlainMessage.of(content(name="@everyone **b**", message="[click](https://evil.example)\n# big"))
    )
    (embed,) = body["embeds"]
    assert embed["title"] == r"\@everyone \*\*b\*\*\: failed \(crashed\)"
    assert embed["description"] == "\\[click\\]\\(https\\://evil\\.example\\)\n\\# big\nProject vision"
    assert (embed["url"], body["allowed_mentions"]) == (LINK, {"parse": []})


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\u202e", "\u200b", "\r"])
def test_characters_that_change_how_text_is_read_are_removed(character: str) -> None:
    notice = PlainMessage.of(content(name=f"a{character}b", message=f"c{character}d"))
    assert (notice.title, notice.text) == ("a b: failed (crashed)", "c d\nProject vision")


def test_without_an_address_of_the_dashboard_there_is_no_link() -> None:
    notice = PlainMessage.of(
        {"type": "job.failed", "data": {"name": "run", "project": "p", "message": None, "reason": None}}
    )
    assert notice == PlainMessage("run: failed", "Project p")
    assert len(notices.slack(notice)["blocks"]) == 2
    assert "actions" not in notices.teams(notice)["attachments"][0]["content"]
    assert "url" not in notices.discord(notice)["embeds"][0]
