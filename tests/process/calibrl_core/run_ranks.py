"""Program of two processes, started by a launcher: `run_ranks.py FILE`, a JSON list of runs of the trainer.

Each is {folder, config, stop_after}, {folder, evaluate}, {folder, audit}, or {folder}: records of sharded weights. A
fresh model never answers right, so the completions' hash decides instead. A run that ends because verdicts are missing
writes why to a file per process, the folder's name with the rank as suffix.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.distributed.tensor import DTensor

from calibrl_core import data
from calibrl_core.audit import audit
from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.config import BuiltinModel, EvaluateConfig, TrainConfig
from calibrl_core.data.schema import BuiltinData, Example
from calibrl_core.distributed.process_group import join_process_group
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.evaluate import evaluate
from calibrl_core.models.policy import load_policy
from calibrl_core.models.weights import Sharding, Weights
from calibrl_core.report import EventFile, SilentReport
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.served import ServedEngine
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.run.checkpoint import Checkpoints, TrainerState, restore_optimizer
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.step.optimizer import make_optimizer
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import NoVerdictError, Scorer
from tests.support.training import of_type, score_or_miss


def run(folder: Path, config: dict[str, Any], stop_after: int | None, ranks: Ranks) -> None:
    report = EventFile(folder) if ranks.first else SilentReport(folder)

    def should_stop() -> bool:  # only the last process gets the stop order
        if stop_after is None or ranks.rank < ranks.world - 1:
            return False
        return len(of_type(folder, "metrics")) >= stop_after

    try:
        with differences_written(folder.with_name(f"{folder.name}.{ranks.rank}.differences")):
            outcome = train(TrainConfig.model_validate(config), report, should_stop, ranks)
        report.emit("finish", **outcome)
    except NoVerdictError as error:
        folder.with_suffix(f".{ranks.rank}.txt").write_text(str(error))
    report.close()


@contextmanager
def differences_written(file: Path) -> Iterator[None]:
    """Write for each batch of a vLLM server the largest difference of a log-probability between sampler and trainer."""
    generate = ServedEngine.generate

    def measured(self: ServedEngine, examples: Sequence[Example], request: SamplingRequest) -> Rollouts:
        rollouts = generate(self, examples, request)
        with file.open("a") as lines:
            lines.write(f"{(rollouts.sampler_logprobs - rollouts.logprobs).abs().max()}\n")
        return rollouts

    with patch.object(ServedEngine, "generate", measured):
        yield


def evaluation(folder: Path, config: dict[str, Any], ranks: Ranks) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = EventFile(folder) if ranks.first else SilentReport(folder)
    report.emit("finish", **evaluate(EvaluateConfig.model_validate(config), report, ranks=ranks))
    report.close()


def audited(folder: Path, config: dict[str, Any], ranks: Ranks) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = EventFile(folder) if ranks.first else SilentReport(folder)
    report.emit("finish", **audit(AuditConfig.model_validate(config), report, ranks=ranks))
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
        try:
            policy.weights.parts(policy.model)
        except RuntimeError:
            found["refuses_parts_meanwhile"] = True
    released: list[bool] = []
    ends = (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())
    second = policy.model.get_decoder().layers[1]
    second.register_forward_pre_hook(lambda *_: released.append(all(isinstance(one.weight, DTensor) for one in ends)))
    token = torch.tensor([[policy.tokenizer.eos_token_id]])
    policy.logprobs(examples[:1], [0], token, torch.ones_like(token).bool(), 1.0).sum().backward()
    found["embeddings_and_head_released_in_layers"] = released == [True]
    found["sharded_again"] = all(isinstance(one, DTensor) for one in policy.model.parameters())
    parts = list(policy.weights.parts(policy.model))
    found["parts_are_whole"] = all(torch.equal(whole[name], one) for part in parts for name, one in part.items())
    found["parts_are_all"] = sum(map(len, parts)) == len(whole)
    return found


def record_sharded_weights(folder: Path, ranks: Ranks) -> None:
    """Write what this process finds to `folder` with the rank as suffix, and a checkpoint into the folder."""
    found = rollouts(BuiltinModel(builtin="tiny-vlm"), ranks)
    if find_spec("torchao"):
        found["restored"] = moments_in_8_bits(folder, Sharding(), ranks)
    folder.with_suffix(f".{ranks.rank}.json").write_text(json.dumps(found))


def moments_in_8_bits(folder: Path, sharding: Sharding | None, ranks: Ranks) -> bool:
    """Save a checkpoint after two updates; return if the optimizer that is restored from it is the same."""
    policy = load_policy(BuiltinModel(builtin="tiny-vlm"), sharding=sharding)
    weights, settings = policy.weights, OptimizerSettings(kind="adamw_8bit", lr=1e-3)
    optimizer = make_optimizer(policy, settings)
    with torch.compiler.set_stance("force_eager"):  # compiling its kernels takes a minute
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            for one in policy.trained.values():
                gradient, first = torch.randn(one.shape, generator=generator), weights.first_row(one)
                rows = len(weights.local_shard(one))
                one.grad = weights.with_shard(gradient[first : first + rows], one, one.shape)
            optimizer.step()
    path = Checkpoints(folder, CheckpointSettings(), ranks).save(policy, optimizer, TrainerState(step=2))
    ranks.any_process(False)  # wait until the first one has written it
    restored = make_optimizer(policy, settings)
    restore_optimizer(path, restored, policy)
    pairs = zip(*(one.state_dict()["state"].values() for one in (optimizer, restored)), strict=True)
    return all(equal_parts(old[kind], new[kind], weights) for old, new in pairs for kind in old)


def equal_parts(one: Any, other: Any, weights: Weights) -> bool:
    """Return if this process's parts of two moments are in the same form, and equal."""
    one, other = weights.local_shard(one), weights.local_shard(other)
    if not hasattr(one, "codes"):
        return torch.equal(one, other)
    return torch.equal(one.codes, other.codes) and torch.equal(one.scale, other.scale)


def main(file: Path) -> None:
    Scorer.grade = score_or_miss  # type: ignore[method-assign]
    with join_process_group() as ranks:
        for one in json.loads(file.read_text()):
            folder = Path(one["folder"])
            if "evaluate" in one:
                evaluation(folder, one["evaluate"], ranks)
            elif "audit" in one:
                audited(folder, one["audit"], ranks)
            elif "config" in one:
                run(folder, one["config"], one.get("stop_after"), ranks)
            else:
                record_sharded_weights(folder, ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
