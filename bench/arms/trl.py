"""TRL's GRPOTrainer, configured for speed: no KL and so no reference model, no activation checkpointing, no logging,
fused AdamW, one generation and one update per step, and log-probabilities in chunks (its default).

It has two ways to generate on one device, `generate` and continuous batching (text only); each is an arm.
"""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from transformers import PrinterCallback, TrainerCallback
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from bench.cases import NO_STOP, ModelCase
from bench.lockstep import Gate, Orders
from bench.rewards import reward
from calibrl_core.data.prompts import INSTRUCTION
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy


class _Turns(TrainerCallback):
    """Callback that stops the loop at the gate between two steps."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.orders = Orders()
        self.tokens = 0  # of the current step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._wait(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._gate.done(self.tokens)
        self._wait(control)

    def _wait(self, control: Any) -> None:
        orders = self._gate.next()
        control.should_training_stop = orders is None
        self.orders = orders or self.orders

    def rewards(
        self, completions: list[Any], completion_ids: list[list[int]], row: list[int], **kwargs: Any
    ) -> list[float | None]:
        """Return the rewards, as GRPOTrainer expects: one entry per completion; `row` is a column of the dataset."""
        self.tokens = sum(map(len, completion_ids))
        texts = [completion[0]["content"] for completion in completions]
        return [reward(text, of, equal=self.orders.equal_rewards) for text, of in zip(texts, row, strict=True)]


def run(case: ModelCase, steps: int, seed: int, continuous_batching: bool, gate: Gate) -> None:
    """Train until the gate stops the loop; there are prompts for `steps` steps."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # TRL calls functions that transformers renames
    policy = case.load()
    torch.set_num_threads(case.threads)
    examples = case.examples(case.prompts * steps)
    train_dataset = dataset(examples)
    require_same_prompt(policy, train_dataset[0], examples[0])
    turns = _Turns(gate)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=policy.model,
            processing_class=policy.processor,
            reward_funcs=turns.rewards,
            args=_settings(case, steps, seed, continuous_batching, folder),
            train_dataset=train_dataset,
            callbacks=[turns],
        )
        trainer.eos_token_ids = [NO_STOP]
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _settings(case: ModelCase, steps: int, seed: int, continuous_batching: bool, folder: str) -> GRPOConfig:
    on_gpu = torch.cuda.is_available()
    return GRPOConfig(
        output_dir=folder,
        use_cpu=not on_gpu,
        seed=seed,
        max_steps=steps,
        per_device_train_batch_size=case.prompts * case.group_size,
        num_generations=case.group_size,
        max_completion_length=case.tokens,
        generation_kwargs={"eos_token_id": [NO_STOP]},
        use_transformers_continuous_batching=continuous_batching,
        temperature=1.0,
        beta=0.0,
        num_iterations=1,
        optim="adamw_torch_fused",
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=on_gpu,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )


def dataset(examples: list[Example]) -> Dataset:
    """Return the examples in the format of GRPOTrainer."""
    messages = Features({"role": Value("string"), "content": Value("string")})
    features = Features({"prompt": List(messages), "row": Value("int64")})
    rows: list[dict[str, Any]] = [
        {"prompt": [{"role": "user", "content": f"{example.question}\n{INSTRUCTION}"}], "row": row}
        for row, example in enumerate(examples)
    ]
    if examples[0].images:
        features["images"] = List(Image())
        for row, example in zip(rows, examples, strict=True):
            row["images"] = [{"bytes": image} for image in example.images]
    return Dataset.from_list(rows, features=features)


def require_same_prompt(policy: Policy, row: dict[str, Any], example: Example) -> None:
    """Check that both arms encode an example to the same tokens.

    Raises:
        ValueError: the tokens differ.
    """
    prompt = prepare_multimodal_messages(row["prompt"], row["images"]) if example.images else row["prompt"]
    theirs = policy.processor.apply_chat_template(
        [prompt], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"][0]
    ours = policy.encode([example]).input_ids[0].tolist()
    if list(theirs) != ours:
        raise ValueError(f"{example.id}: TRL's prompt has other tokens than ours: {list(theirs)}, {ours}")
