"""The main job on the whole stack with the real trainer: warm-up, CalibRL from it, evaluation of both."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from calibrl.client import Client
from calibrl.commands import demo
from calibrl.schemas import JobStatus
from tests.e2e.conftest import ended
from tests.support.waiting import LIMIT_SECONDS

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STARRED = {
    *("reward/mean", "reward/std", "reward/answer_accuracy", "reward/strict_accuracy"),
    *("exploration/entropy", "exploration/active_groups", "rareness/mean"),
    *("expert/gap_mean", "expert/nll", "loss/policy", "loss/guidance", "loss/total", "loss/grad_norm"),
    *(f"expert/quadrant_{name}" for name in ("confident_correct", "underconfident_correct")),
    *(f"expert/quadrant_{name}" for name in ("overconfident_wrong", "humble_wrong")),
    *("clip/low_share", "clip/high_share", "length/mean", "length/truncated_share"),
    *(f"perf/{name}_seconds" for name in ("step", "rollout", "reward", "update")),
    "perf/tokens_per_second",
}


def test_warm_up_then_calibrl_then_evaluation(training_client: Client) -> None:
    validation = {"data": {"builtin": "digits", "split": "validation", "rows": 8}, "every_steps": 2, "samples": 2}
    warmup = training_client.submit(
        demo.warmup_spec(seed=0, stack="test") | {"steps": 4, "prompts_per_step": 4, "validation": validation}
    )
    shortened = {"steps": 3, "prompts_per_step": 2, "validation": validation}
    trained = training_client.submit(demo.reinforcement_spec(warmup, "calibrl") | shortened)
    held_out = [{"builtin": "digits", "split": "test", "rows": 4}]
    evaluation = training_client.submit(demo.evaluation_spec([warmup, trained]) | {"data": held_out})
    assert [trained.status, evaluation.status] == [JobStatus.WAITING] * 2
    assert trained.depends_on == [warmup.id]

    warmed_up, finished, evaluated = (ended(training_client, job) for job in (warmup, trained, evaluation))

    assert (warmed_up.step, finished.step) == (4, 3)
    rows = training_client.metrics(trained.id).data
    assert [row.step for row in rows] == [1, 2, 3]
    assert all(row.values.keys() >= STARRED for row in rows)
    assert "validation/accuracy" in rows[-1].values
    for name in ("rareness", "expert/gap"):
        histograms = training_client.histograms(trained.id, name).data
        assert [histogram.step for histogram in histograms] == [1, 2, 3]
        assert all(sum(histogram.counts) > 0 for histogram in histograms)

    summary = training_client.samples(trained.id).data[0]
    group = training_client.sample(trained.id, summary.id).group
    assert group["expert"].startswith("<think>")
    assert len(group["completions"]) == 8
    assert training_client.image(trained.id, group["images"][0]).startswith(b"\x89PNG")

    (checkpoint,) = [one for one in training_client.checkpoints(trained.id) if one.step == 3]
    assert (Path(checkpoint.path) / "model.safetensors").is_file()
    assert evaluated.result is not None
    assert [row["model_index"] for row in evaluated.result["results"]] == [0, 1]
    assert evaluated.result["comparisons"][0]["split"] == "test"
    assert "eval/test/pass_at_k" in training_client.metrics(evaluation.id).data[-1].values
    started_from = json.loads((Path(checkpoint.path).parents[1] / "config.json").read_text())["model"]["path"]
    assert str(warmup.id) in started_from


def test_a_run_that_cannot_start_says_why(training_client: Client, tmp_path: Path) -> None:
    """The model folder is invalid: the job fails with the reason, which is in the log too."""
    (tmp_path / "config.json").write_text('{"model_type": "no such model"}')
    spec = demo.warmup_spec(seed=0, stack="test") | {"model": {"path": str(tmp_path)}, "steps": 1}
    job = training_client.submit(spec)
    now = training_client.wait(job.id, LIMIT_SECONDS)
    assert (now.status, now.reason) == (JobStatus.FAILED, "bad_spec")
    assert now.message is not None
    assert str(tmp_path) in now.message
    assert now.message in training_client.log(job.id).text


def test_training_on_an_uploaded_dataset(training_client: Client, tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("L", (56, 56), 255).save(image, "PNG")
    encoded = base64.b64encode(image.getvalue()).decode()
    row = {"question": "<image>What is it?", "images": [encoded], "answer": "7", "expert": "<answer>7</answer>"}
    file = tmp_path / "sevens.jsonl"
    file.write_text("".join(json.dumps(row | {"question": f"{row['question']} {n}"}) + "\n" for n in range(8)))
    dataset = training_client.upload(file)
    assert (dataset.name, dataset.rows, dataset.has_experts) == ("sevens", 8, True)
    spec = {
        "kind": "train",
        "name": "sevens",
        "model": {"builtin": "tiny-vlm"},
        "data": {"dataset": str(dataset.id)},
        "algorithm": {"type": "sft"},
        "steps": 2,
        "prompts_per_step": 4,
    }
    job = ended(training_client, training_client.submit(spec))
    assert [row.step for row in training_client.metrics(job.id).data] == [1, 2]
    paths = training_client.download_checkpoint(job.id, 2, tmp_path / "model")
    assert {"config.json", "model.safetensors", "trainer.json"} <= {path.name for path in paths}
    assert all(path.is_file() for path in paths)
