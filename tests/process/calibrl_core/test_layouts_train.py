"""A dataset of each public layout trains the tiny model, and its picture reaches the model."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from calibrl_core import data
from calibrl_core.config import BuiltinModel
from calibrl_core.data.schema import Example, FileData
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.report import EventFile
from calibrl_core.train import train
from tests.support.layouts import EXPERT, Layout, layouts
from tests.support.pictures import png
from tests.support.training import config, of_type

pytestmark = pytest.mark.slow
RED, BLUE = layouts(png("red")), layouts(png("blue"))
RL = {"algorithm": {"type": "grpo", "mini_batches": 1}}
SFT = {"algorithm": {"type": "sft"}, "rollout": {"max_completion_tokens": 64}}


@pytest.fixture(scope="module")
def policy() -> Iterator[Policy]:
    yield load_policy(BuiltinModel(builtin="tiny-vlm"), "float32")


def source(folder: Path, layout: Layout) -> FileData:
    folder.mkdir()
    path = folder / layout.file
    if path.suffix == ".jsonl":
        path.write_text(json.dumps(layout.row) + "\n" + json.dumps(layout.row) + "\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([layout.row, layout.row]), path)
    return FileData(path=str(path), image_files=False)


def logprobs(policy: Policy, example: Example) -> torch.Tensor:
    tokens, mask = policy.tokenize_experts([replace(example, expert=EXPERT)], limit=16)
    with torch.no_grad():
        return policy.logprobs([example], [0], tokens, mask, 1.0)


@pytest.mark.parametrize("name", RED)
def test_a_layout_trains_and_its_picture_reaches_the_model(tmp_path: Path, policy: Policy, name: str) -> None:
    red, blue = source(tmp_path / "red", RED[name]), source(tmp_path / "blue", BLUE[name])
    (one, *_), (other, *_) = data.load(red), data.load(blue)
    assert (one.question, one.answer, one.expert) == (other.question, other.answer, other.expert)
    assert (logprobs(policy, one) - logprobs(policy, other)).abs().max() > 1e-4
    report = EventFile(tmp_path / "run")
    settings = {**(SFT if RED[name].expert else RL), "steps": 3, "checkpoints": {"every_steps": 3}}
    result = train(config(data=red.model_dump(), **settings), report, lambda: False)
    report.close()
    assert (result["status"], len(of_type(tmp_path / "run", "metrics"))) == ("succeeded", 3)
    (line,) = [event["message"] for event in of_type(tmp_path / "run", "log") if " rows in " in event["message"]]
    left_out = ", ".join(RED[name].unused) or "none"
    assert f"2 with images; unused columns: {left_out}" in line
