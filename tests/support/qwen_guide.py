"""Material of the guide docs/how-to/qwen-7b.md: a tiny twin of the model, problems and traces."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import load_file

from bench.gpu import shapes
from tests.families.run import write_images
from tests.support import documents

PAGE = "docs/how-to/qwen-7b.md"
SPEC = documents.DOCS / "examples/qwen-7b.yaml"
HUB_NAME = "Qwen/Qwen2.5-VL-7B-Instruct"
ROWS = 6


def write_twin(folder: Path) -> None:
    """Write the twin with the files of the hub's repository: sharded weights, and the chat template as JSON."""
    config = shapes.make_config(shapes.SMALL, shapes.write_processor(folder))
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    shapes.make_model(config, "cpu", torch.bfloat16).save_pretrained(folder, max_shard_size="1MB")
    assert (folder / "model.safetensors.index.json").exists()


def write_data(folder: Path) -> None:
    """Write problems in the columns of Geometry3K, and traces for all but two of them."""
    pictures = [{"bytes": file.read_bytes(), "path": file.name} for file in write_images(folder)]
    problems = [{"images": [pictures[row % 3]], "problem": "<image>Find x.", "answer": str(row)} for row in range(ROWS)]
    for name in ("geometry3k", "validation"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(problems), folder / f"{name}.parquet")
    traces = [
        {"index": row, "solution": f"<think>x={row}.</think><answer>{row}</answer>"} for row in range(1, ROWS - 1)
    ]
    (folder / "traces.jsonl").write_text("\n".join(map(json.dumps, traces)) + "\n")


def join_traces(folder: Path) -> None:
    """Run the program of the page in the working folder `folder`: it writes `train.parquet`."""
    (block,) = [block for block in documents.blocks("python") if block.path == PAGE]
    exec(compile(block.text, PAGE, "exec"), {"__name__": "__main__"})
    experts = pyarrow.parquet.read_table(folder / "train.parquet")["solution"].to_pylist()
    assert [expert is None for expert in experts] == [True, *[False] * (ROWS - 2), True]


def only_language_changed(before: Path, after: Path) -> None:
    """Check that training changed the language model, and left the vision tower as it was."""
    start, end = (
        {name: tensor for file in folder.glob("model*.safetensors") for name, tensor in load_file(file).items()}
        for folder in (before, after)
    )
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name].float(), end[name].float())}
    assert changed and not any("visual" in name for name in changed)
