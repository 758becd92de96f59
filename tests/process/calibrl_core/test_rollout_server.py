"""The engine on a real vLLM server: what it samples, and what it does when the server fails.

`make test-vllm` runs these in their own environment; elsewhere they are skipped. One server serves all tests.
"""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from calibrl_core.config import EvaluateConfig
from calibrl_core.data.schema import Example
from calibrl_core.evaluate import ANSWERS_FILE, evaluate
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.rollout import servers
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.own_folder import sweep
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.rollout.vllm_server import VLLMServer
from calibrl_core.rollout.weight_files import WeightUpdate, WholeUpdate
from calibrl_core.settings.sampling import EngineSettings, SamplingSettings
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed here: make test-vllm")


@pytest.fixture(scope="module")
def engine(policy: Policy) -> Iterator[ServedEngine]:
    made = ServedEngine(policy, EngineSettings(engine="vllm_server", batch_tokens=10_000))
    yield made
    made.close()


def sampled(engine: Any, examples: list[Example], **changed: Any) -> Any:
    settings = {"group_size": 4, "temperature": 1.0, "max_tokens": 12, "seed": [5], **changed}
    with engine.sampling(1):
        return engine.generate(examples, SamplingRequest(**settings))


def assert_same_policy(rollouts: Any) -> None:
    """vLLM's log-probabilities are the trainer's."""
    torch.testing.assert_close(rollouts.sampler_logprobs, rollouts.logprobs, rtol=0, atol=2e-5)


def family(process: int) -> list[int]:
    """Return the ids of a process, its children, theirs, and so on."""
    found = [process]
    for parent in found:
        found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found


def server(engine: ServedEngine) -> VLLMServer:
    """Return the engine's only server."""
    (only,) = engine._servers._servers
    return only


def worker(engine: ServedEngine) -> int:
    """Return the process that runs the model."""
    processes = family(server(engine)._processes()[-1])
    return [one for one in processes if b"Worker" in Path(f"/proc/{one}/cmdline").read_bytes()][-1]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_log_probabilities_are_the_trainers(engine: ServedEngine, examples: list[Example]) -> None:
    for temperature in (0.7, 2.0):
        assert_same_policy(sampled(engine, examples[:3], temperature=temperature))


def test_greedy_completions_are_those_of_the_trainer(
    engine: ServedEngine, policy: Policy, examples: list[Example]
) -> None:
    ours = sampled(engine, examples[:3], temperature=0, group_size=1)
    own = sampled(SharedPrefillEngine(policy), examples[:3], temperature=0, group_size=1)
    assert torch.equal(ours.tokens, own.tokens)
    assert_same_policy(ours)


def test_greedy_evaluations_are_those_of_the_trainer(tmp_path: Path) -> None:
    """Only the greedy answers: vLLM draws the sampled ones with random numbers of its own."""
    settings = {
        "models": [{"builtin": "tiny-vlm"}],
        "data": [{"builtin": "digits", "split": "validation", "rows": 4}],
    }
    answers, results = [], []
    for engine in ("vllm_server", "shared_prefill"):
        rollout = {"engine": engine, "batch_tokens": 10_000, "max_completion_tokens": 12, "samples": 2}
        report = EventFile(tmp_path / engine)
        outcome = evaluate(EvaluateConfig.model_validate(settings | {"rollout": rollout}), report)
        report.close()
        (result,) = outcome["result"]["results"]
        results.append({name: value for name, value in result["metrics"].items() if name.startswith("greedy_")})
        lines = map(json.loads, (tmp_path / engine / ANSWERS_FILE).read_text().splitlines())
        answers.append([line for line in lines if line.get("how") == "greedy"])
    assert results[0] == results[1]
    assert [line["texts"] for line in answers[0]] == [line["texts"] for line in answers[1]]
    assert answers[0]


def test_a_completion_depends_on_its_row_alone(engine: ServedEngine, examples: list[Example]) -> None:
    whole = sampled(engine, examples[:3])
    rest = sampled(engine, examples[1:3], first_row=4)
    assert whole.texts[4:] == rest.texts
    assert len(set(whole.texts)) > 6
    assert sampled(engine, examples[:3], seed=[6]).texts != whole.texts


def test_rows_that_outgrow_the_memory_are_the_same(
    engine: ServedEngine, policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for one row of 512 tokens, so that most of 16 rows of 200 must wait or are discarded half-way."""
    monkeypatch.setattr(policy, "stop_ids", frozenset([5]))
    expected = sampled(engine, examples[:4], max_tokens=200)
    little = ServedEngine(policy, EngineSettings(engine="vllm_server", batch_tokens=512))
    try:
        found = sampled(little, examples[:4], max_tokens=200)
    finally:
        little.close()
    assert expected.mask.sum() > 1500
    assert torch.equal(found.tokens, expected.tokens)
    assert_same_policy(found)


def test_more_memory_than_there_is_is_refused(policy: Policy) -> None:
    with pytest.raises(ModelError, match=r"rollout\.engine: vllm_server does not start with this model"):
        ServedEngine(policy, EngineSettings(engine="vllm_server", batch_tokens=10**12))


def test_stop_tokens_bans_and_filters_hold(
    engine: ServedEngine, policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    banned = torch.ones_like(policy.banned)
    banned[[70, 71, 72, 73]] = False
    monkeypatch.setattr(policy, "banned", banned)
    monkeypatch.setattr(policy, "stop_ids", frozenset([73]))
    rollouts = sampled(engine, examples[:2], group_size=16, temperature=2.0)
    assert set(rollouts.tokens[rollouts.mask].tolist()) == {70, 71, 72, 73}
    for tokens, mask, truncated in zip(rollouts.tokens, rollouts.mask, rollouts.truncated, strict=True):
        assert 73 not in tokens[mask][:-1]
        assert truncated.item() == (tokens[mask][-1] != 73)
    assert_same_policy(rollouts)
    one = sampled(engine, examples[:2], group_size=16, sampling=SamplingSettings(top_k=1))
    assert one.sampler_logprobs.abs().max() < 1e-6  # a single token is left
    assert one.logprobs[one.mask].max() < -0.01


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(
    engine: ServedEngine, policy: Policy, examples: list[Example]
) -> None:
    """The same seeds draw the same tokens up to there. The string lies in two tokens of a completion."""
    decode = policy.tokenizer.decode
    plain = sampled(engine, examples[:3], max_tokens=24)
    whole = [tokens[mask].tolist() for tokens, mask in zip(plain.tokens, plain.mask, strict=True)]
    pairs = [row[place : place + 2] for row in whole for place in range(3, 20)]
    string = next(text for text in map(decode, pairs) if text.isascii() and text.isprintable())
    rollouts = sampled(engine, examples[:3], max_tokens=24, sampling=SamplingSettings(stop=(string,)))
    cut = 0
    for row, tokens in enumerate(whole):
        end = next((end for end in range(1, len(tokens) + 1) if string in decode(tokens[:end])), None)
        assert rollouts.tokens[row][rollouts.mask[row]].tolist() == tokens[:end]
        if end is not None:
            cut += end < len(tokens)
            assert not rollouts.truncated[row]
            assert string in rollouts.texts[row]
    assert cut
    assert_same_policy(rollouts)


def test_new_weights_leave_no_cached_prefix_or_image(
    engine: ServedEngine, policy: Policy, examples: list[Example]
) -> None:
    """Weights of the vision tower change what was computed of an image, and of the prompt behind it."""
    before = sampled(engine, examples[:2])
    kept = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.2)
    after = sampled(engine, examples[:2])
    policy.model.load_state_dict(kept)
    assert_same_policy(after)
    assert after.texts != before.texts
    again = sampled(engine, examples[:2])
    assert again.texts == before.texts


def test_the_socket_is_open_to_this_user_only(engine: ServedEngine) -> None:
    socket = server(engine).socket
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert socket.is_socket()


def test_a_server_killed_while_it_samples_changes_no_completion(
    engine: ServedEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sampled(engine, examples, max_tokens=200)
    victim = worker(engine)
    with engine.sampling(1):
        ask = engine._servers._ask
        killer = threading.Event()

        def asking(server: VLLMServer, body: Any) -> Any:
            if not killer.is_set():
                killer.set()
                os.kill(victim, signal.SIGKILL)
            return ask(server, body)

        monkeypatch.setattr(engine._servers, "_ask", asking)
        request = SamplingRequest(group_size=4, temperature=1.0, max_tokens=200, seed=[5])
        found = engine.generate(examples, request)
    assert server(engine).starts == 2
    assert torch.equal(found.tokens, expected.tokens)
    assert_same_policy(found)


def test_a_worker_that_hangs_is_replaced(
    engine: ServedEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server still calls itself healthy."""
    expected, starts, replace = sampled(engine, examples[:2]), server(engine).starts, engine._servers._replace

    def replacing(*given: Any) -> None:
        monkeypatch.undo()  # the first answer of a new server takes long
        replace(*given)

    with engine.sampling(1):
        os.kill(worker(engine), signal.SIGSTOP)
        server(engine).call("GET", "/health", seconds=10)
        monkeypatch.setattr(servers, "PROBE_SECONDS", 2.0)
        monkeypatch.setattr(servers, "ANSWER_SECONDS", 2.0)
        monkeypatch.setattr(engine._servers, "_replace", replacing)
        found = engine.generate(examples[:2], SamplingRequest(group_size=4, temperature=1.0, max_tokens=12, seed=[5]))
    assert server(engine).starts == starts + 1
    assert torch.equal(found.tokens, expected.tokens)


def test_a_failed_update_is_repeated_in_a_new_server(
    engine: ServedEngine, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, starts = sampled(engine, examples[:2]), server(engine).starts
    write = engine._weights.write
    lost: list[Path] = []

    def writing(version: int) -> WeightUpdate:
        update = write(version)
        assert isinstance(update, WholeUpdate)
        if not lost:
            lost.append(Path(update.files[0]).rename(f"{update.files[0]}.lost"))
        return update

    launch = server(engine).launch

    def launching() -> None:
        lost[0].rename(str(lost[0]).removesuffix(".lost"))
        launch()

    monkeypatch.setattr(engine._weights, "write", writing)
    monkeypatch.setattr(server(engine), "launch", launching)
    found = sampled(engine, examples[:2])
    assert server(engine).starts == starts + 1
    assert torch.equal(found.tokens, expected.tokens)


def test_a_server_that_dies_during_an_update_gets_the_weights_before_it(
    engine: ServedEngine, policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process of the run ends it here, and asks the next start."""
    monkeypatch.setattr(servers, "MAX_RESTARTS", 99)  # earlier tests have used them
    expected = sampled(engine, examples[:2], max_tokens=200)
    other = VLLMServer(server(engine).socket.parent, 0, [], {})
    with other.locked():
        assert other.renewed()
    request = SamplingRequest(group_size=4, temperature=1.0, max_tokens=200, seed=[5])
    with engine.sampling(1):
        engine.begin(examples[:2], request)
    other.kill()
    kept = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.2)
    with engine.sampling(2):
        found = engine.generate(examples[:2], request)
        later = engine.generate(examples[:2], SamplingRequest(group_size=4, temperature=1.0, max_tokens=9, seed=[6]))
    policy.model.load_state_dict(kept)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.sampler_logprobs, expected.sampler_logprobs, rtol=0, atol=2e-5)
    assert (found.logprobs - expected.logprobs)[found.mask].abs().max() > 0.01  # of the new weights
    assert_same_policy(later)
    with other.locked():
        assert other.renewed()
    other.call("GET", "/health", seconds=10)


TRAINER = """
import signal
import sys
from pathlib import Path
from calibrl_core.config import BuiltinModel
from calibrl_core.distributed.process_group import join_process_group
from calibrl_core.models.policy import load_policy
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.settings.sampling import EngineSettings

with join_process_group() as ranks:
    settings = EngineSettings(engine="vllm_server", batch_tokens=1000)
    engine = ServedEngine(load_policy(BuiltinModel(builtin="tiny-vlm")), settings, ranks)
    with engine.sampling(1):
        (server,) = engine._servers._servers
        found = [*server._processes(), server.socket.parent, engine._weights._folder.path]
        Path(sys.argv[1], f"{ranks.rank}.new").write_text(" ".join(map(str, found)))
        Path(sys.argv[1], f"{ranks.rank}.new").rename(Path(sys.argv[1], f"{ranks.rank}.found"))
        signal.pause()
"""


def test_a_launcher_killed_with_servers_alive_leaves_nothing(tmp_path: Path) -> None:
    """No process. Killed processes cannot remove sockets and files: the next run of this user does."""
    (tmp_path / "trainer.py").write_text(TRAINER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher = subprocess.Popen(
        [*command, str(tmp_path / "trainer.py"), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        eventually(lambda: len(list(tmp_path.glob("*.found"))) == 2 or launcher.poll() is not None)
        assert launcher.poll() is None
        found = [file.read_text().split() for file in tmp_path.glob("*.found")]
        processes = [one for server, *_ in found for one in family(int(server))]
        folders = {Path(folder) for _, *both in found for folder in both}
        assert len(processes) >= 6  # API server, engine and worker, twice
        assert len(folders) == 3  # the files of the weights are common
        assert all(folder.exists() for folder in folders)
    finally:
        launcher.kill()
        launcher.wait()
    eventually(lambda: not any(map(alive, processes)))
    for folder in folders:  # as `OwnFolder` does at its start
        sweep(folder.name, folder.parent)
    assert not any(folder.exists() for folder in folders)
