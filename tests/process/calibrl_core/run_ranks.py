"""Program of two processes, started by a launcher: `run_ranks.py FILE`, a JSON list of runs of the trainer.

Each is {folder, config, stop_after}, or {folder, evaluate}. A fresh model never answers right, so the completions' hash
decides instead.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from calibrl_core import data
from calibrl_core.config import BuiltinModel, EvaluateConfig, TrainConfig
from calibrl_core.data.schema import BuiltinData
from calibrl_core.distributed.process_group import join_process_group
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.evaluate import evaluate
from calibrl_core.models.policy import load_policy
from calibrl_core.models.weights import Sharding
from calibrl_core.report import EventFile, SilentReport
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Scorer
from tests.support.training import score_by_hash


def run(folder: Path, config: dict[str, Any], stop_after: int | None, ranks: Ranks) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1  # only the last process gets the stop order
        return stop_after is not None and asked > stop_after and ranks.rank == ranks.world - 1

    report = EventFile(folder) if ranks.first else SilentReport(folder)
    outcome = train(TrainConfig.model_validate(config), report, should_stop, ranks)
    report.emit("finish", **outcome)
    report.close()


def evaluation(folder: Path, config: dict[str, Any], ranks: Ranks) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = EventFile(folder) if ranks.first else SilentReport(folder)
    report.emit("finish", **evaluate(EvaluateConfig.model_validate(config), report, ranks=ranks))
    report.close()


def rollouts(model: BuiltinModel, ranks: Ranks) -> dict[str, Any]:
    """Sample from a policy with sharded weights and record the state that it keeps."""
    examples = data.load(BuiltinData(builtin="digits", split="validation", rows=3))
    whole = load_policy(model).model.state_dict()
    policy = load_policy(model, sharding=Sharding())
    parameters = list(policy.model.parameters())
    found = {
        "all_sharded": all(isinstance(one, DTensor) for one in parameters),
        "kept": sum(one.to_local().numel() for one in parameters) / policy.parameter_count,
    }
    engine = SharedPrefillEngine(policy)
    with engine.sampling(0):
        if ranks.first:  # no process waits for another as long as the weights are here
            made = engine.generate(examples, SamplingRequest(group_size=2, temperature=1.0, max_tokens=8, seed=[5]))
            found["tokens"], found["logprobs"] = made.tokens.tolist(), made.logprobs.tolist()
    found["sharded_again"] = all(isinstance(one, DTensor) for one in policy.model.parameters())
    parts = list(policy.weights.parts(policy.model))
    found["parts_are_whole"] = all(torch.equal(whole[name], one) for part in parts for name, one in part.items())
    found["parts_are_all"] = sum(map(len, parts)) == len(whole)
    return found


def main(file: Path) -> None:
    Scorer.score_all = score_by_hash  # type: ignore[method-assign]
    with join_process_group() as ranks:
        for one in json.loads(file.read_text()):
            if "evaluate" in one:
                evaluation(Path(one["folder"]), one["evaluate"], ranks)
            else:
                run(Path(one["folder"]), one["config"], one.get("stop_after"), ranks)
        found = rollouts(BuiltinModel(builtin="tiny-vlm"), ranks)
    file.with_suffix(f".{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
