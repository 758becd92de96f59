"""Submits the runs that docs/how-to/read-a-run.md shows to a running stack: `python -m tests.e2e.guide_runs DATA`.

They take ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from calibrl.client import Client
from calibrl.client.address import read_stack
from calibrl.commands.demo import evaluation_spec, reinforcement_spec, warmup_spec
from calibrl.schemas import Dataset, Job
from calibrl_core.data.builtin.digits import load
from calibrl_core.data.schema import BuiltinData

FAR = "In answer to the question, one observes that adding them up yields the value {}."  # a style unlike the policy's


def far_experts(client: Client, folder: Path) -> Dataset:
    """Write the digits with experts in a style that the policy would never use."""
    rows = [
        {
            "question": example.question if "<image>" in example.question else f"<image>{example.question}",
            "answer": example.answer,
            "images": [base64.b64encode(example.images[0]).decode()],
            "expert": f"<think>{FAR.format(example.answer)}</think><answer>{example.answer}</answer>",
        }
        for example in load(BuiltinData(builtin="digits", split="train", rows=512))
    ]
    file = folder / "far.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return client.upload(file, name="digits-far-experts")


def submit(client: Client, folder: Path) -> list[Job]:
    """Submit all runs, each from the same warm-up."""
    warmup = client.submit(warmup_spec(0, "guide"))

    def run(algorithm: str, **changes: Any) -> Job:
        return client.submit(reinforcement_spec(warmup, algorithm) | changes)

    calibrl = run("calibrl")
    few = {"builtin": "digits", "split": "train", "rows": 32}
    far = {"dataset": str(far_experts(client, folder).id)}
    return [
        warmup,
        calibrl,
        client.submit(evaluation_spec([warmup, calibrl])),
        run("grpo", name="collapsed", data=few, optimizer={"lr": 3e-4}, steps=240),
        run("grpo", name="exploded", optimizer={"lr": 1.5e-3}, steps=120),
        run("calibrl", name="far-expert", data=far, steps=120),
        run("grpo"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("data_dir", type=Path)
    running = read_stack(parser.parse_args().data_dir)
    if running is None:
        raise SystemExit("no stack runs on this folder")
    with Client(running.api_url, running.api_key) as client, tempfile.TemporaryDirectory() as folder:
        for job in submit(client, Path(folder)):
            print(job.id, job.name)


if __name__ == "__main__":
    main()
