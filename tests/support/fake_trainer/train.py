"""`python -m tests.support.fake_trainer.train CONFIG --run-dir DIR`: curves, histograms, samples, checkpoints."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from calibrl_core.config import TrainConfig
from calibrl_core.report import EVENT_FILE, EventFile, SampleCompletion, SampleGroup
from tests.support.fake_trainer import Behaviour
from tests.support.fake_trainer.run import arguments, hold, png, run_process, stop_event

ROWS = 100  # of any dataset
SLEEP_FOR_EVER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def carry(state: int, step: int) -> int:
    """Return the state after `step`. Checkpoints carry it: a resume from a wrong one shows in every later step."""
    return (state * 1_103_515_245 + 12_345 + step) % 2**31


def metrics(step: int, steps: int, validated: bool) -> dict[str, float]:
    """Curves that look like a run: accuracy rises, entropy falls, with ripples."""
    done = step / steps
    ripple = 0.03 * math.sin(step)
    accuracy = 0.4 + 0.3 * done + ripple
    values = {
        "reward/mean": accuracy * 1.1,
        "reward/std": 0.45 - 0.1 * done,
        "reward/answer_accuracy": accuracy,
        "reward/strict_accuracy": accuracy - 0.02,
        "exploration/entropy": 1.2 - 0.5 * done + ripple,
        "exploration/active_groups": 0.9 - 0.4 * done,
        "rareness/mean": 0.8 + ripple,
        "rareness/correct": 0.9 - 0.3 * done,
        "rareness/wrong": 0.6 + 0.3 * done,
        "expert/gap_mean": 3.0 + done,
        "expert/gap_correct": 2.5 + done,
        "expert/gap_wrong": 3.5 + done,
        "expert/quadrant_confident_correct": 0.3 + 0.2 * done,
        "expert/quadrant_underconfident_correct": 0.2 - 0.1 * done,
        "expert/quadrant_overconfident_wrong": 0.3 - 0.2 * done,
        "expert/quadrant_humble_wrong": 0.2 + 0.1 * done,
        "expert/nll": 2.0 - 0.5 * done,
        "loss/policy": 0.01 * math.sin(step),
        "loss/guidance": 0.7 - 0.1 * done,
        "loss/total": 0.08 + ripple,
        "loss/grad_norm": 1.0 + ripple,
        "clip/low_share": 0.01,
        "clip/high_share": 0.02,
        "clip/dual_share": 0.001,
        "length/mean": 28 + 4 * done,
        "length/truncated_share": 0.02,
        "perf/step_seconds": 0.4,
        "perf/rollout_seconds": 0.2,
        "perf/reward_seconds": 0.01,
        "perf/update_seconds": 0.19,
        "perf/tokens_per_second": 4000.0,
    }
    return values | ({"validation/accuracy": accuracy} if validated else {})


def group(prompt_id: str, image: str, size: int, doubt: float = 0.0) -> SampleGroup:
    """A group of which every other completion passes; of the others every other one tries to be markup. `doubt` is part
    of its entropy."""
    tokens = ["<think>", "3", "+", "4", "=", "7", ".", "</think>", "<answer>", "7", "</answer>"]

    def completion(index: int) -> SampleCompletion:
        passed = index % 2 == 0
        wrong = ["8"] if index % 4 == 3 else ["<b>8</b>", "**"]
        words = tokens if passed else [*tokens[:9], *wrong, tokens[10]]
        return {
            "text": "".join(words),
            "tokens": words,
            "logprobs": [-0.1 * (position % 7) for position in range(len(words))],
            "entropies": [doubt + 0.2 * (position % 5) for position in range(len(words))],
            "gaps": [0.5 * position - 2 if position < 10 else None for position in range(len(words))],
            "ratios": [1.0 + 0.1 * (position % 3) for position in range(len(words))],
            "left_out": 0,
            "rewards": {"math": float(passed), "format": 1.0},
            "reward": float(passed) + 0.1,
            "advantage": 0.9 if passed else -1.1,
            "passed": passed,
            "truncated": False,
        }

    return {
        "prompt_id": prompt_id,
        "prompt": "What is the sum of the two digits?",
        "answer": "7",
        "images": [image],
        "expert": "<think>The digits are 3 and 4.</think><answer>7</answer>",
        "expert_tokens": ["<think>", "The", " digits", " are", " 3", " and", " 4", ".", "</think>", "<answer>", "7"],
        "completions": [completion(index) for index in range(size)],
    }


def visits(step: int, size: int) -> dict[str, Any]:
    """Four of eight prompts: the first is solved more and more, the second was lost at step 50, the others never."""
    chosen = [number for number in range(8) if number % 2 == step % 2]
    solved = {0: min(step // 10, size), 1: size if step < 50 else 0}
    return {
        "prompts": [f"{number:016x}" for number in chosen],
        "ids": [f"digits-{number}" for number in chosen],
        "experts": [number < 6 for number in chosen],
        "passed": [solved.get(number, 0) for number in chosen],
        "sizes": [size] * len(chosen),
        "entropies": [0.5 + 0.1 * number for number in chosen],
        "gaps": [0.3 * number if number < 6 else None for number in chosen],
        "rareness": [0.4] * len(chosen),
    }


class Run:
    """Represents one attempt; `self.step` is the last finished step."""

    def __init__(self, config: TrainConfig, run_dir: Path) -> None:
        self.config, self.steps = config, config.step_count(ROWS)
        self.run_dir = run_dir
        self.report = EventFile(run_dir)
        self.folder = run_dir / "checkpoints"
        self.folder.mkdir(exist_ok=True)
        self.step, self.carried, self.best = 0, getattr(config.model, "seed", 0), (0.0, 0)
        if kept := self.kept():
            state = json.loads((kept[-1] / "state.json").read_text())
            self.step, self.carried, self.best = state["step"], state["carried"], tuple(state["best"])

    def announce(self) -> None:
        """Report the start step and the existing checkpoints: a kill may have come before their report."""
        self.report.emit("start", steps_total=self.steps, step=self.step, versions={"fake": "1"}, parameters=1_200_000)
        for path in self.kept():
            self._tell(path, [])

    def kept(self) -> list[Path]:
        return sorted(self.folder.glob("step-*[0-9]"))

    def save(self) -> None:
        path = self.folder / f"step-{self.step:06d}"
        if path.exists():
            return
        partial = path.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        hold(self.run_dir, f"saving-{self.step}")
        accuracy = metrics(self.step, self.steps, True)["validation/accuracy"]
        self.best = max(self.best, (accuracy, self.step))
        state = {"step": self.step, "carried": self.carried, "best": self.best}
        try:
            (partial / "state.json").write_text(json.dumps(state))
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        old = self.kept()[: -self.config.checkpoints.keep_last]
        for gone in old:
            shutil.rmtree(gone)
        self._tell(path, [str(gone) for gone in old])

    def _tell(self, path: Path, removed: list[str]) -> None:
        state = json.loads((path / "state.json").read_text())
        accuracy = metrics(state["step"], self.steps, True)["validation/accuracy"]
        self.report.emit(
            "checkpoint",
            step=state["step"],
            path=str(path),
            best=state["best"][1] == state["step"],
            metrics={"validation/accuracy": accuracy},
            removed=removed,
        )

    def one_step(self) -> None:
        self.step += 1
        steps = self.steps
        validation = self.config.validation
        validated = validation is not None and (self.step % validation.every_steps == 0 or self.step == steps)
        self.carried = carry(self.carried, self.step)
        values = metrics(self.step, steps, validated) | {"state/carried": float(self.carried)}
        self.report.emit("metrics", step=self.step, values=values)
        self.report.emit("visits", step=self.step, **visits(self.step, self.config.rollout.group_size))
        for name, low, high in (("rareness", 0.0, 2.0), ("expert/gap", -4.0, 12.0)):
            edges = [low + (high - low) * i / 20 for i in range(21)]
            counts = [(i * 7 + self.step) % 23 for i in range(20)]
            self.report.emit("histogram", step=self.step, name=name, edges=edges, counts=counts)
        if self.step in (1, steps) or self.step % self.config.samples.every_steps == 0:
            image = self.report.save_image(png(self.step * 10))
            for index in range(self.config.samples.groups):
                doubt = 0.5 * index + 0.01 * (self.step % 50)
                sampled = group(f"digits-{index}", image, self.config.rollout.group_size, doubt)
                self.report.emit("sample", step=self.step, group=sampled)
        print(f"step {self.step}", flush=True)
        if self.step % self.config.checkpoints.every_steps == 0 or self.step == steps:
            self.save()


def misbehave(behaviour: Behaviour, run: Run) -> None:
    """Apply the fault that the config's seed selects."""
    if behaviour is Behaviour.CRASH:
        raise RuntimeError("the fake trainer was asked to crash")
    if behaviour is Behaviour.ERROR:
        run.report.emit("error", reason="non_finite", message="loss/total was NaN at step 5")
        sys.exit(1)
    if behaviour is Behaviour.CAUGHT:
        run.report.emit("error", reason="crashed", message="KeyError: 'digits'")
        sys.exit(1)
    if behaviour in (Behaviour.STUBBORN, Behaviour.STRAGGLER):
        subprocess.Popen([sys.executable, "-c", SLEEP_FOR_EVER, str(run.run_dir)])
    if behaviour is Behaviour.STUBBORN:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait(600)
    if behaviour is Behaviour.KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour is Behaviour.BAD_LINES:
        with (run.run_dir / EVENT_FILE).open("ab") as file:
            file.write(b'{"type": "metr\n[1, 2]\n\xff\xfe\n{"type": "metrics", "step": "x"}\n{"type": "unheard_of"}\n')
        run.report.emit("log", level="warning", message="a NUL \0 and half a surrogate pair \ud800")
        run.report.emit("metrics", step=run.step, values={"reward/mean": math.nan, "loss/total": math.inf})


def ail(run: Run) -> dict[str, Any]:
    """A health rule fires, and its settings say that it ends the run."""
    run.save()
    alert = {"rule": "all_truncated", "state": "fired", "message": "all were cut", "suggestion": "Raise the limit."}
    run.report.emit("health", step=run.step, **alert)
    return {"status": "stopped", "reason": "health", "message": "all_truncated fired; a checkpoint was kept"}


def follow(config: TrainConfig, run_dir: Path, stop: threading.Event) -> None:
    """Do what a process does that is not the first one: write nothing, and end with it."""
    events = run_dir / EVENT_FILE
    while not stop.wait(0.02):
        types = {json.loads(line)["type"] for line in events.read_text().splitlines()} if events.exists() else set()
        if types & {"finish", "error"}:
            return
        if "metrics" in types and config.seed == Behaviour.PEER_CRASH:
            raise RuntimeError("the other process was asked to crash")


def train() -> None:
    text, run_dir = arguments()
    config = TrainConfig.model_validate_json(text)
    stop = stop_event()
    if int(os.environ.get("RANK", 0)):
        follow(config, run_dir, stop)
        return
    run = Run(config, run_dir)
    run.announce()
    status: dict[str, Any] = {"status": "succeeded"}
    behaviour = Behaviour(config.seed)
    while run.step < run.steps:
        hold(run.run_dir, f"step-{run.step}", stop)
        if stop.wait(config.prompts_per_step / 1000):
            hold(run.run_dir, "stopping")
            run.save()
            status = {"status": "stopped"}
            break
        run.one_step()
        if run.step == run.steps // 2:
            misbehave(behaviour, run)
            if behaviour is Behaviour.UNHEALTHY:
                status = ail(run)
                break
    run.report.emit("finish", **status, step=run.step, result={"best_step": run.best[1], "accuracy": run.best[0]})
    hold(run.run_dir, "finishing")


def main() -> None:
    run_process(train)


if __name__ == "__main__":
    main()
