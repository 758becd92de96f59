"""The parts of the check, in their order. Their limits and their starts are 12 minutes together."""

from __future__ import annotations

from functools import partial

from bench.gpu import correctness, served, shapes, training
from bench.gpu.findings import CheckPart

PARTS = (
    CheckPart("rollouts", "Contract of the rollouts", 40, correctness.rollouts),
    CheckPart("qwen-7b-lora", "Qwen2.5-VL-7B with LoRA", 110, partial(training.train, shape=shapes.QWEN_7B, lora=True)),
    CheckPart("qwen-3b", "Qwen2.5-VL-3B, all weights", 90, partial(training.train, shape=shapes.QWEN_3B, lora=False)),
    CheckPart("qwen-7b", "Qwen2.5-VL-7B, all weights", 70, partial(training.train, shape=shapes.QWEN_7B, lora=False)),
    CheckPart("kernels", "Attention kernels", 70, correctness.kernels),
    CheckPart("families", "Tiny models of all families", 120, correctness.families),
    CheckPart(
        "served", "Rollouts by a vLLM server, language model of 3B", 140, partial(served.serve, shape=shapes.QWEN_3B)
    ),
)
