"""Files and fine-tuning jobs as the official client of OpenAI sends them."""

import base64
import io
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import openai
from openai import OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob
from openai.types.graders import StringCheckGraderParam
from PIL import Image

Client = Callable[..., OpenAI]


def picture() -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def chat(number: int, *, answered: bool = True, **columns: Any) -> dict[str, Any]:
    question = {"role": "user", "content": [picture(), {"type": "text", "text": f"What is {number} + 1?"}]}
    answer = {"role": "assistant", "content": f"It is {number + 1}."}
    return {"messages": [{"role": "system", "content": "Add."}, question, *([answer] if answered else [])]} | columns


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


CHATS = jsonl([chat(number) for number in range(8)])
GRADED = jsonl([chat(number, answered=number > 3, reference_answer=str(number + 1)) for number in range(8)])
GRADER: StringCheckGraderParam = {
    "type": "string_check",
    "name": "equal",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.reference_answer }}",
    "operation": "eq",
}


def upload(client: OpenAI, content: bytes = CHATS, name: str = "chats.jsonl") -> FileObject:
    return client.files.create(file=(name, content), purpose="fine-tune")


def by_trial(**hyperparameters: Any) -> Any:
    return {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": hyperparameters}}


def create(client: OpenAI, **options: Any) -> FineTuningJob:
    given = {"training_file": upload(client).id} if "training_file" not in options else {}
    return client.fine_tuning.jobs.create(**{"model": "tiny-vlm", **given, **options})


def uuid(job: FineTuningJob) -> UUID:
    return UUID(job.id.removeprefix("ftjob-"))


def fault(error: openai.APIStatusError) -> tuple[str | None, str | None]:
    assert isinstance(error.body, dict) and error.body.keys() == {"message", "type", "param", "code"}
    assert error.request_id == error.response.headers["x-request-id"]
    return error.param, error.code
