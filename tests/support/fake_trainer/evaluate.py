"""`python -m tests.support.fake_trainer.evaluate CONFIG --run-dir DIR`: progress, and results of the real one's form.

A built-in model's `seed` says how good it is: each adds a tenth to what it has right of a dataset's hundred prompts.
"""

import random
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from calibrl_core.config import BuiltinModel, EvaluateConfig, ModelSource, PathModel
from calibrl_core.evaluation.bootstrap import intervals, paired_differences
from calibrl_core.report import EventFile
from tests.support.fake_trainer.run import arguments, run_process, stop_event

PROMPTS = 100


def accuracies(model: ModelSource, split: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Each prompt's, the same in every run. Harder prompts are harder for all models."""
    skill = 0.3 + 0.1 * (model.seed % 6) if isinstance(model, BuiltinModel) else 0.6
    noise = random.Random(f"{skill}/{split}")
    return np.array([float(index / PROMPTS < skill + noise.gauss(0, 0.08)) for index in range(PROMPTS)])


def measured(values: np.ndarray[Any, np.dtype[np.float64]], seed: int) -> dict[str, float]:
    metrics: dict[str, float] = {"length_mean": 28.0}
    for name, shift in (("accuracy", 0.0), ("pass_at_k", 0.1), ("majority_at_k", 0.03), ("greedy_accuracy", 0.02)):
        shifted = np.clip(values + shift * (values == 0), 0, 1)
        low, high = intervals(shifted[:, None], seed)[:, 0].tolist()
        metrics |= {name: float(shifted.mean()), f"{name}_low": low, f"{name}_high": high}
    return metrics


def evaluate() -> None:
    text, run_dir = arguments()
    evaluate_models(EvaluateConfig.model_validate_json(text), EventFile(run_dir), stop_event())


def evaluate_models(
    config: EvaluateConfig, report: EventFile, stop: threading.Event, seconds: float = 0.05
) -> dict[str, Any] | None:
    """Report every model on every dataset, `seconds` apart; return the result, or None once `stop` is set."""
    total = len(config.models) * len(config.data)
    report.emit("start", steps_total=total, step=0, versions={"fake": "1"}, parameters=1_200_000)
    results: list[dict[str, Any]] = []
    per_prompt: dict[str, list[Any]] = {source.name: [] for source in config.data}
    for index, model in enumerate(config.models):
        if isinstance(model, PathModel) and not Path(model.path).is_dir():
            report.emit("error", reason="bad_spec", message=f"no model at {model.path}")
            raise SystemExit(1)
        for source in config.data:
            if stop.wait(seconds):
                report.emit("finish", status="stopped", step=len(results), result={})
                return None
            split, values = source.name, accuracies(model, source.name)
            per_prompt[split].append(values)
            prompts = [f"{number:016x}" for number in range(PROMPTS)]
            report.emit("accuracies", model_index=index, split=split, prompts=prompts, values=values.tolist())
            name = model.path if isinstance(model, PathModel) else model.builtin
            row = {"model": name, "model_index": index, "split": split, "samples": config.rollout.samples}
            results.append(
                row | {"prompts": PROMPTS, "metrics": measured(values, config.seed), "sources": {}},
            )
            report.emit("progress", step=len(results), steps_total=total)
        report.emit("metrics", step=index, values={f"eval/{config.data[0].name}/accuracy": 0.5})
    comparisons = [
        {"split": split, **asdict(found), "distinguishable": found.distinguishable}
        for split, kept in per_prompt.items()
        for found in paired_differences(kept, config.seed)
    ]
    result = {"results": results, "comparisons": comparisons}
    report.emit("finish", status="succeeded", step=total, result=result)
    return result


def main() -> None:
    run_process(evaluate)


if __name__ == "__main__":
    main()
