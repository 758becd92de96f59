"""Two processes with sharded weights: none holds more than its share and a little at load, save and resume."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.process.calibrl_core import run_memory
from tests.support.waiting import LIMIT_SECONDS

ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SLACK = 1_000_000  # bytes: copies of single tensors in a collective, and small buffers


@pytest.mark.slow
def test_no_process_holds_the_whole_model(tmp_path: Path, text_policy: Callable[..., Any]) -> None:
    from transformers import Qwen2Config

    policy = text_policy(Qwen2Config, hidden_size=256, intermediate_size=1024, num_hidden_layers=8)
    policy.save_form(tmp_path / "model")
    half = {name: tensor.bfloat16() for name, tensor in policy.model.state_dict().items()}
    save_file(half, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    whole = 4 * policy.parameter_count
    largest = 4 * max(parameter.numel() for parameter in policy.model.parameters())
    layer = 4 * sum(parameter.numel() for parameter in policy.model.get_decoder().layers[0].parameters())
    command = [*TORCHRUN, run_memory.__file__, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_DEACTIVATE_ASYNC_LOAD": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, timeout=LIMIT_SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"bytes.{rank}.json").read_text()) for rank in (0, 1))
    assert whole > 20 * largest  # or the limits below would allow a whole model
    print(whole, largest, layer, first, second)
    for found in (first, second):
        assert whole / 2 <= found["load"] < whole / 2 + layer + largest + SLACK
        assert found["resume"] < SLACK  # views of the files
        assert found["moments_differ"] == 0
    assert second["save"] < layer + largest + SLACK
    assert first["save"] < run_memory.FILE_BYTES + layer + largest + SLACK
