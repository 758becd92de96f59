"""Costs that the time of a step does not show: host time per decoded token, encodings of images, waiting for processes
that prepare images.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from bench import memory, report
from bench.cases import NO_STOP
from calibrl_core.config import TrainConfig
from calibrl_core.report import EventFile
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.train import train

ROWS, TOKENS = 8, 64  # decoded together, per completion
REPEATS = 5
DEEP = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 28}  # as deep as Qwen2.5-VL-7B, and narrow
SIDE = 1024  # pixels of each side of an image
PROMPTS, STEPS, STARTED = 8, 8, 3  # per step; of a run; steps until the processes have started


def measure() -> list[report.ReportRow]:
    """Measure all of them."""
    return [_decoding(), *_images()]


def _decoding() -> report.ReportRow:
    """Compare the CPU time of a decoded token with that of transformers' `generate`. The layers are so narrow that most
    of it are calls of kernels, which a GPU waits for.
    """
    policy = memory.make_policy(memory.Size(vocabulary=1000), **DEEP)
    policy.stop_ids = frozenset({NO_STOP})
    torch.set_num_threads(1)
    engine = SharedPrefillEngine(policy)
    request = SamplingRequest(group_size=ROWS, temperature=1.0, max_tokens=TOKENS, seed=[0])
    prompt = policy.encode([memory.EXAMPLE]).input_ids
    lengths = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS}

    def generate() -> None:
        policy.model.generate(prompt, do_sample=True, num_return_sequences=ROWS, **lengths)

    ours = _cpu_seconds(lambda: engine.generate([memory.EXAMPLE], request))
    peer = _cpu_seconds(generate)
    what = f"CPU time per decoded token, {ROWS} rows, {DEEP['num_hidden_layers']} narrow layers (peer: generate)"
    return report.no_goal(what, 1000 * ours / TOKENS, 1000 * peer / TOKENS, "ms")


def _cpu_seconds(work: Callable[[], object]) -> float:
    work()  # not counted: the first call of each kernel takes longer
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return median(times)


def _images() -> list[report.ReportRow]:
    """Run the trainer on images with none, one and two processes that prepare them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write_rows(folder / "rows.jsonl")
        runs = {workers: _run(folder / "rows.jsonl", folder / str(workers), workers) for workers in (0, 1, 2)}
    waiting, encodings = zip(*runs.values(), strict=True)
    what = f"waiting for {PROMPTS} images of 1 Mpx per step"
    return [
        *(
            report.no_goal(f"{what}, {workers} data workers (peer: none)", waiting[workers], waiting[0], "s")
            for workers in (1, 2)
        ),
        report.within("encodings per prompt and step", max(encodings) / PROMPTS, "", 1.0),
    ]


def _run(rows: Path, folder: Path, workers: int) -> tuple[float, float]:
    """Return the seconds that a step waits for its images, and the number of prompts that it encodes: medians."""
    config = TrainConfig.model_validate(
        {
            "model": {"builtin": "tiny-vlm"},
            "data": {"path": str(rows)},
            "algorithm": {"type": "calibrl", "mini_batches": 1},
            "rollout": {"group_size": ROWS, "max_completion_tokens": TOKENS},
            "prompts_per_step": PROMPTS,
            "steps": STEPS,
            "data_workers": workers,
        }
    )
    events = EventFile(folder)
    train(config, events, lambda: False)
    events.close()
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    values = [line["values"] for line in lines if line["type"] == "metrics"][STARTED:]
    waits, counts = ([one[name] for one in values] for name in ("perf/image_seconds", "perf/encodings"))
    return median(waits), median(counts)


def _write_rows(path: Path) -> None:
    """Write as many rows as the run takes, each with an image of noise, which takes long to decode."""
    generator = np.random.default_rng(0)
    lines = []
    for number in range(PROMPTS * STEPS):
        image = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(image, format="PNG")
        (path.parent / f"{number}.png").write_bytes(image.getvalue())
        row = {"question": "How many?", "answer": "1", "expert": "<answer>1</answer>", "image": f"{number}.png"}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
