"""Peak memory of an update over a large vocabulary: ours, which never holds all tokens' logits, and the plain path.

    python -m bench.memory

Each arm runs one update on 8 x 1024 completion tokens with a vocabulary of 151,936 (Qwen's), with the same model, loss
and optimizer. Our arm computes log-probabilities in chunks from hidden states. The plain arm uses transformers'
interface: a forward pass with logits, log_softmax, gather. Each arm runs in a separate process, after a small update
that creates the optimizer's state. The measure is the growth of the process beyond its previous size: resident memory
on a CPU, torch's own count on a GPU. The model is small (hidden size 256, 4 layers), so that logits dominate its
activations, as in large models under gradient checkpointing, and everything fits into 24 GB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from bench import report
from bench.peak_memory import peak_bytes, restart_peak
from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import Rollouts
from calibrl_core.step.experts import find_experts
from calibrl_core.step.optimizer import GradientStep, make_optimizer
from calibrl_core.step.update import Updater

ROWS = 8
GOAL = 0.25  # goal: share of the plain path's peak
LIMIT = 1800.0  # seconds per path
EXAMPLE = Example(id="memory", question="1 2 3", answer="6")


@dataclass(frozen=True)
class Size:
    """Sizes of the benchmark; the tests use smaller ones."""

    vocabulary: int = 151_936
    tokens: int = 1024  # per completion


@dataclass(frozen=True)
class Use:
    """Memory used by one update."""

    peak_bytes: int  # growth from the initial size
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the JSON file")
    results = parser.parse_args().results
    console = Console()
    console.print(report.circumstances(("transformers", "torch")), soft_wrap=True)
    rows = measure(Size(), console)
    path = report.write("memory", rows, results)
    console.print(f"\n{report.table(rows)}\n\n{path}", markup=False, highlight=False, soft_wrap=True)


def measure(size: Size, console: Console) -> list[report.ReportRow]:
    """Measure both paths, one after the other."""
    with console.status("our update"):
        ours = alone(our_update, size)
    with console.status("the plain path's update"):
        plain = alone(plain_update, size)
    what = f"vocabulary {size.vocabulary:,}, {ROWS} x {size.tokens} tokens"
    return [
        report.at_most(f"peak memory of the update, {what}", ours.peak_bytes / 1e9, plain.peak_bytes / 1e9, "GB", GOAL),
        report.no_goal("its time, ours and the plain path's", ours.seconds, plain.seconds, "s"),
    ]


def alone(path: Callable[[Size], Use], size: Size) -> Use:
    """Run the path in a fresh process.

    Raises:
        MemoryError: the system killed the process.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(path, size).result(LIMIT)
        except BrokenProcessPool as error:
            raise MemoryError(
                f"{path.__name__} was killed, probably because the machine has too little memory"
            ) from error


def our_update(size: Size) -> Use:
    """Run the trainer's own update."""
    policy, config = make_policy(size), _config(size)
    gradient = GradientStep(policy, make_optimizer(policy, config.optimizer), config.optimizer)
    updater = Updater(policy, gradient, config)

    def update(tokens: int) -> None:
        updater.update(make_batch(policy, config, tokens, size.vocabulary), step=0)

    return _measured(update, size)


def plain_update(size: Size) -> Use:
    """Run a forward pass with logits, log_softmax, gather, the clipped loss, backward and AdamW."""
    policy, config = make_policy(size), _config(size)
    optimizer = make_optimizer(policy, config.optimizer)

    def update(tokens: int) -> None:
        batch = make_batch(policy, config, tokens, size.vocabulary)
        optimizer.zero_grad(set_to_none=True)
        advantages = batch.advantages.float().T  # [ROWS, 1]
        ratio = (plain_logprobs(policy, batch.rollouts.tokens) - batch.rollouts.logprobs).exp()
        (-(ratio * advantages).minimum(ratio.clamp(0.8, 1.2) * advantages)).mean().backward()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), config.optimizer.max_grad_norm)
        optimizer.step()

    return _measured(update, size)


def plain_logprobs(policy: Policy, completions: Tensor) -> Tensor:
    """Return log-probabilities of completions `[B, T]` of one prompt, from all logits at once."""
    prompt = policy.encode([EXAMPLE]).input_ids.expand(len(completions), -1)
    input_ids = torch.cat([prompt, completions], dim=1)
    with policy.forward_context():
        logits = policy.model(input_ids, use_cache=False, logits_to_keep=completions.shape[1] + 1).logits[:, :-1]
    logprobs: Tensor = logits.float().log_softmax(-1)
    del logits
    return logprobs.gather(-1, completions[..., None]).squeeze(-1)


def make_policy(size: Size, **shape: int) -> Policy:
    """Return a small Llama with that vocabulary, random weights and tied embeddings. `shape`: other sizes of it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(index): index for index in range(size.vocabulary)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0", eos_token="1", pad_token="1")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4} | shape
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size.vocabulary,
            **sizes,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    return Policy(model, tokenizer, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def make_batch(
    policy: Policy, config: TrainConfig, tokens: int, vocabulary: int, example: Example = EXAMPLE
) -> StepBatch:
    """Make one prompt, `example`, with synthetic rollouts, each with a non-zero advantage."""
    sampled = (~policy.banned).nonzero().flatten().tolist()
    allowed = torch.tensor([token for token in sampled if token not in policy.stop_ids])
    drawn = allowed[torch.randint(len(allowed), (ROWS, tokens), generator=torch.Generator().manual_seed(1))]
    shape = drawn.shape
    near = torch.full(
        shape, -float(torch.tensor(vocabulary).log()), device=policy.device
    )  # log-probability under a random model
    advantages = torch.linspace(-1, 1, ROWS, dtype=torch.float64, device=policy.device)[None]
    return StepBatch(
        examples=[example],
        rollouts=Rollouts(
            tokens=drawn.to(policy.device),
            mask=torch.ones(shape, dtype=torch.bool, device=policy.device),
            logprobs=near,
            sampler_logprobs=near,
            entropies=-near,
            truncated=torch.ones(ROWS, dtype=torch.bool, device=policy.device),
            texts=[""] * ROWS,
            group_size=ROWS,
        ),
        scores=[],
        rewards=advantages,
        passed=advantages > 0,
        advantages=advantages,
        experts=find_experts(policy, [example], config),
    )


def _config(size: Size) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "model": {"builtin": "tiny-vlm"},  # not read: see `make_policy`
            "data": {"builtin": "digits"},
            "algorithm": {"type": "grpo", "mini_batches": 1},
            "rollout": {"group_size": ROWS, "max_completion_tokens": size.tokens},
            "prompts_per_step": 1,
            "steps": 1,
        }
    )


def _measured(update: Callable[[int], None], size: Size) -> Use:
    on_gpu = torch.cuda.is_available()
    Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, end this process and no other
    update(8)
    before = restart_peak(on_gpu=on_gpu)
    began = time.perf_counter()
    update(size.tokens)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return Use(peak_bytes(on_gpu=on_gpu) - before, seconds)


if __name__ == "__main__":
    main()
