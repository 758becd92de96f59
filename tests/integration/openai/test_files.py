"""The official client of OpenAI, unchanged, against the served API: files."""

from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from openai import OpenAI

from tests.support.openai_requests import CHATS, GRADED, chat, fault, jsonl, upload

pytestmark = pytest.mark.integration


def test_files_are_uploaded_listed_read_and_deleted(client: OpenAI) -> None:
    first, second = upload(client), upload(client, GRADED, "graded set.jsonl")
    assert (first.filename, first.bytes, first.purpose, first.object) == (
        "chats.jsonl",
        len(CHATS),
        "fine-tune",
        "file",
    )
    assert (first.status, second.filename) == ("processed", "graded set.jsonl")
    assert upload(client).id == first.id  # the same content
    assert client.files.retrieve(first.id) == client.files.retrieve(str(UUID(first.id[5:]))) == first
    assert client.files.content(second.id).read() == GRADED
    assert [file.id for file in client.files.list(limit=1)] == [second.id, first.id]  # page by page
    assert [file.id for file in client.files.list(order="asc", purpose="fine-tune")] == [first.id, second.id]
    assert client.files.list(purpose="batch").data == []
    gone = client.files.delete(first.id)
    assert (gone.id, gone.deleted) == (first.id, True)
    with pytest.raises(openai.NotFoundError, match="There is no file"):
        client.files.retrieve(first.id)
    assert client.files.wait_for_processing(second.id).status == "processed"


def test_files_that_can_not_be_used_are_refused(client: OpenAI, api: httpx.Client) -> None:
    rows = [chat(0), {"messages": [{"role": "user", "content": "?"}, {"role": "tool", "content": "?"}]}]
    with pytest.raises(openai.BadRequestError, match=r"rows\.2: column 'messages': a message's role must") as error:
        upload(client, jsonl(rows))
    assert fault(error.value) == ("rows.2", "invalid")
    with pytest.raises(openai.BadRequestError) as error:
        client.files.create(file=("a.jsonl", CHATS), purpose="batch")
    assert fault(error.value) == ("purpose", "invalid")
    with pytest.raises(openai.BadRequestError) as error:
        expires: Any = {"anchor": "created_at", "seconds": 3600}
        client.files.create(file=("a.jsonl", CHATS), purpose="fine-tune", expires_after=expires)
    assert fault(error.value) == ("expires_after[anchor]", "invalid")
    bodies: list[dict[str, Any]] = [{"data": {"purpose": "fine-tune"}}, {"content": CHATS}, {"files": {"file": b""}}]
    for body in bodies:
        answer = api.post("/v1/files", **body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    long = api.post("/v1/files", files={"file": CHATS}, data={"purpose": "x" * 2000})
    assert "Too long" in long.json()["error"]["message"]
    assert client.files.list().data == []
