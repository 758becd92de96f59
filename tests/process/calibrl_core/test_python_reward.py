"""Functions of users as rewards, in worker processes with a sandbox."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.verifiers import NumericReward, PythonReward
from calibrl_core.verifiers.plugin import PluginError
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.sandbox import SandboxPolicy, sandbox_problem
from calibrl_core.verifiers.scorer import Scorer
from tests.support.training import config, of_type

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

GRADES = """
import time

def grade(sample, item):
    text = sample["output_text"]
    if text == "hang":
        time.sleep(600)
    if text == "fail":
        raise LookupError("x")
    while text == "loop":
        pass
    if isinstance(sample["output_json"], dict):
        return sample["output_json"]["score"]
    assert text in sample["choices"][0]["message"]["content"]
    return len(sample.get("group", [])) / 8 + (text == item["answer"]) / 2 + item.get("bonus", 0)
"""


def function(**settings: Any) -> PythonReward:
    return PythonReward(source=GRADES, **settings)


@needs_bubblewrap
def test_a_function_sees_completion_truth_columns_and_group() -> None:
    seen = [
        RewardInput("7 ", "7"),
        RewardInput("8", "7", item={"bonus": 0.125}),
        RewardInput("7", "0", item={"answer": "7"}),  # the row's own column
        RewardInput('{"score": 0.75}', "7"),
        RewardInput("<think>8</think><answer>7</answer>", "7", group=("7", "8")),
    ]
    rewards: list[Reward] = [
        function(),
        function(name="of-groups", needs_group=True, weight=2.0),
        NumericReward(answer_in="last"),
    ]
    with Scorer(rewards, workers=1) as scorer:
        scores = scorer.grade(seen)
    assert [score.by_verifier["python-function"] for score in scores] == [0.5, 0.125, 0.5, 0.75, 0.5]
    assert scores[4].by_verifier["python-of-groups"] == 0.75
    assert scores[4].reward == 0.5 + 2 * 0.75 + 1
    assert [score.failure for score in scores] == [None] * 5


@needs_bubblewrap
def test_a_call_that_fails_or_hangs_costs_no_other_verdict() -> None:
    with Scorer([function(time_limit_seconds=0.5)], workers=1) as scorer:
        scores = scorer.score_all(["7", "hang", "8", "fail", "7"], ["7"] * 5)
    assert [score.by_verifier["python-function"] for score in scores] == [0.5, 0.0, 0.0, 0.0, 0.5]
    assert [score.failure for score in scores] == [
        None,
        "python-function: no verdict within 0.5 seconds",
        None,
        "python-function: GradeError: line 9: LookupError: x",
        None,
    ]


@needs_bubblewrap
def test_an_endless_loop_does_not_cost_the_worker_process() -> None:
    with Scorer([function(time_limit_seconds=3)], workers=1) as scorer:
        (score,) = scorer.score_all(["loop"], ["7"])
        (worker,) = scorer._pool._workers
    assert score.failure == "python-function: GradeError: its process was killed (the limit is 3 s of CPU time)"
    assert worker.asked == 1


@needs_bubblewrap
def test_time_without_a_cpu_does_not_count_against_a_function() -> None:
    """The function's 0.4 s take 0.8 s beside a process with the same share of the same CPU."""
    source = "import time\ndef grade(sample, item):\n    while time.process_time() < 0.4: pass\n    return 1.0"
    given, cpu = os.sched_getaffinity(0), min(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as busy:
        try:
            os.sched_setaffinity(busy.pid, {cpu})
            os.sched_setaffinity(0, {cpu})
            with Scorer([PythonReward(source=source, time_limit_seconds=0.6)], workers=1) as scorer:
                (score,) = scorer.score_all(["7"], ["7"])
        finally:
            os.sched_setaffinity(0, given)
            busy.kill()
    assert (score.reward, score.failure) == (1.0, None)


@needs_bubblewrap
def test_a_training_learns_from_a_function(tmp_path: Path) -> None:
    source = """
def grade(sample, item):
    return len(sample["choices"][0]["message"]["content"]) % 2 * bool(item["answer"])
"""
    settings = config(rewards=[{"type": "python", "source": source}], steps=1)
    report = EventFile(tmp_path)
    train(settings, report, lambda: False)
    report.close()
    (metrics,) = of_type(tmp_path, "metrics")
    (sample,) = of_type(tmp_path, "sample")
    completions = sample["group"]["completions"]
    given = [completion["rewards"]["python-function"] for completion in completions]
    assert given == [float(len(completion["text"]) % 2) for completion in completions]
    assert metrics["values"]["reward/verifier_failures"] == 0


def descendants(process: int) -> Iterator[int]:
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


@needs_bubblewrap
def test_a_sandbox_ends_with_its_worker() -> None:
    with Scorer([function()], workers=1) as scorer:
        scorer.score_all(["7"], ["7"])
        (worker,) = scorer._pool._workers
        processes = [*descendants(worker._process.pid)]
        assert len(processes) == 4  # the judge; bubblewrap, its first process, and the program inside
        watched = [os.pidfd_open(process) for process in processes]
    for process in watched:
        assert select.select([process], [], [], 30.0)[0]
        os.close(process)


def test_a_machine_without_a_sandbox_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    sandbox_problem.cache_clear()
    with pytest.raises(PluginError) as caught:
        Scorer([NumericReward(), function()])
    sandbox_problem.cache_clear()
    assert str(caught.value) == (
        "rewards: python-function cannot run: this machine has no sandbox for functions of users: bubblewrap is not "
        "installed: install the package bubblewrap, which has the command bwrap"
    )


def test_an_administrator_can_allow_plain_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    sandbox_problem.cache_clear()
    with Scorer([function()], workers=1, sandbox=SandboxPolicy(plain_processes=True)) as scorer:
        (score,) = scorer.score_all(["7"], ["7"])
    sandbox_problem.cache_clear()
    assert (score.reward, score.failure) == (0.5, None)
