"""verl's schema, from JSONL and Parquet alike: every shape of its columns, what is wrong with others, mixed files."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from calibrl_core import data
from calibrl_core.config import TrainSettings
from calibrl_core.data.files import check_source
from calibrl_core.data.prompts import messages
from calibrl_core.data.schema import DataError, FileData, Turn
from calibrl_core.report import EventFile
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Scorer
from tests.support.training import config, of_type

ROW = {
    "data_source": "geometry3k",
    "prompt": [{"role": "user", "content": "<image>Find x."}],
    "images": ["a.png"],
    "reward_model": {"style": "rule", "ground_truth": "3"},
    "solution": "<think>1+2</think><answer>3</answer>",
    "pass_ratio": 0.5,
    "extra_info": {"index": 7, "split": "train", "tools_kwargs": {"a": 1}},
}


@pytest.fixture
def png(tmp_path: Path, png: bytes) -> bytes:
    (tmp_path / "a.png").write_bytes(png)
    return png


def write(path: Path, *rows: Any) -> FileData:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileData(path=str(path))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_row_becomes_an_example(tmp_path: Path, png: bytes, suffix: str) -> None:
    (example,) = data.load(write(tmp_path / f"train.{suffix}", ROW))
    assert (example.question, example.answer, example.images) == ("<image>Find x.", "3", (png,))
    assert example.expert == ROW["solution"]
    assert (example.data_source, example.pass_ratio, example.earlier) == ("geometry3k", 0.5, ())
    assert example.id == "train/1:7"


def test_parquet_carries_images_as_bytes_or_paths_several_a_prompt(tmp_path: Path, png: bytes) -> None:
    images = [{"bytes": png, "path": None}, {"bytes": None, "path": "a.png"}]
    row = ROW | {"images": images, "prompt": [{"role": "user", "content": "<image>then <image>?"}]}
    (example,) = data.load(write(tmp_path / "a.parquet", row))
    assert example.images == (png, png)
    raw = ROW | {"images": [png, png, png], "prompt": [{"role": "user", "content": "<image><image><image>Find x."}]}
    (example,) = data.load(write(tmp_path / "b.parquet", raw))
    assert example.images == (png, png, png)
    kinds = [part["type"] for part in messages(example)[0]["content"]]
    assert kinds[:4] == ["image", "image", "image", "text"]  # two tags were missing, and are before the text


def test_earlier_messages_and_content_in_parts(tmp_path: Path, png: bytes) -> None:
    prompt = [
        {"role": "system", "content": "Think first."},
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A triangle."},
        {"role": "user", "content": [{"type": "text", "text": "And its area?"}]},
    ]
    (example,) = data.load(write(tmp_path / "a.jsonl", ROW | {"prompt": prompt}))
    assert example.question == "And its area?"
    assert example.earlier == (
        Turn("system", "Think first."),
        Turn("user", "<image>What?"),
        Turn("assistant", "A triangle."),
    )


@pytest.mark.parametrize(
    ("solution", "expert"),
    [
        ("e", "e"),
        (["e", "f"], "e"),
        ({"role": "assistant", "content": "e"}, "e"),
        ([{"role": "assistant", "content": "e"}, {"content": "f"}], "e"),
        ({"content": [{"type": "text", "text": "e"}]}, "e"),
        ("", None),
        ([], None),
        ({"role": "assistant"}, None),
        (None, None),
    ],
)
def test_the_expert_of_each_shape_of_solution(tmp_path: Path, png: bytes, solution: Any, expert: str | None) -> None:
    assert data.load(write(tmp_path / "a.jsonl", ROW | {"solution": solution}))[0].expert == expert


@pytest.mark.parametrize(
    ("ratio", "kept"), [(0.25, True), (1, True), (1e-9, True), (0, False), (-1.0, False), (None, True)]
)
def test_a_pass_ratio_of_0_drops_the_expert_not_the_row(
    tmp_path: Path, png: bytes, ratio: float | int | None, kept: bool
) -> None:
    (example,) = data.load(write(tmp_path / "a.jsonl", ROW | {"pass_ratio": ratio}))
    assert (example.expert is not None) == kept
    assert example.pass_ratio == ratio


@pytest.mark.parametrize(
    ("truth", "answer"), [("3", "3"), (3, "3"), (0.5, "0.5"), (["a", "b"], "a"), ([3], "3"), ("\\frac{1}{2}",) * 2]
)
def test_a_ground_truth_of_each_shape(tmp_path: Path, png: bytes, truth: Any, answer: str) -> None:
    row = ROW | {"reward_model": {"ground_truth": truth}}
    assert data.load(write(tmp_path / "a.jsonl", row))[0].answer == answer


def test_optional_columns_can_be_absent(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": 2}}
    (example,) = data.load(write(tmp_path / "a.jsonl", row))
    assert (example.images, example.expert, example.data_source, example.pass_ratio) == ((), None, None, None)
    assert example.id == "a/1"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompt": "Find x."}, "column 'prompt' must hold a list of messages"),
        ({"prompt": []}, "column 'prompt' must hold a list of messages"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "role must be one of system, user, assistant"),
        ({"prompt": [{"role": "user", "content": 3}]}, "content must be text or a list of parts"),
        ({"prompt": [{"role": "user", "content": [{"type": "video"}]}]}, "column 'prompt' holds videos"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "must end with a message of the user"),
        ({"prompt": [{"role": "user", "content": "<image><image>"}]}, "has 2 <image> tags, but the row has 1 images"),
        ({"reward_model": "3"}, "column 'reward_model' must hold an object"),
        ({"reward_model": {}}, "column 'reward_model.ground_truth' must hold the answer"),
        ({"reward_model": {"ground_truth": {"target": "3"}}}, "column 'reward_model.ground_truth'"),
        ({"reward_model": {"ground_truth": []}}, "column 'reward_model.ground_truth'"),
        ({"solution": 3}, "column 'solution'"),
        ({"pass_ratio": "0.5"}, "column 'pass_ratio' must be empty or a number"),
        ({"pass_ratio": float("nan")}, "column 'pass_ratio' must be empty or a number"),
        ({"pass_ratio": 50}, "column 'pass_ratio' must be empty or a number"),
        ({"images": ["b.png"]}, "image 'b.png' is neither a readable file"),
        ({"videos": ["b.mp4"]}, "column 'videos' holds videos, which training does not support"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, png: bytes, changes: dict[str, Any], problem: str) -> None:
    source = write(tmp_path / "a.jsonl", ROW, ROW | changes, ROW)
    with pytest.raises(DataError) as caught:
        data.load(source)
    assert str(caught.value).startswith(f"{source.path}, row 2: ")
    assert problem in str(caught.value)
    assert "row 1:" not in str(caught.value) and "row 3:" not in str(caught.value)


def test_a_row_that_lacks_a_column_and_one_of_another_form(tmp_path: Path, png: bytes) -> None:
    plain = {"question": "q", "answer": "1", "images": base64.b64encode(png).decode()}
    lacking = {"prompt": ROW["prompt"], "images": ROW["images"]}
    source = write(tmp_path / "a.jsonl", ROW, lacking, plain)
    with pytest.raises(DataError) as caught:
        data.load(source)
    assert str(caught.value) == (
        f"{source.path}, row 2: column 'reward_model' is missing; {source.path}, row 3: column 'prompt' is missing: "
        "it has the plain format, the first rows verl's format; put them into two files"
    )


def test_a_format_is_detected_by_columns_that_no_other_format_has(tmp_path: Path, png: bytes) -> None:
    extra = ROW | {"question": "Find x.", "answer": "3", "problem": "Find x."}
    assert data.load(write(tmp_path / "a.jsonl", extra))[0].data_source == "geometry3k"
    (problem,) = check_source(write(tmp_path / "b.jsonl", {"prompt": ROW["prompt"]}), needs_experts=False)
    assert "has the columns 'prompt', which fit no known format: verl's format (prompt, reward_model)" in problem


def test_experts_dropped_by_their_pass_ratio_are_not_trained_on(tmp_path: Path, png: bytes) -> None:
    assert check_source(write(tmp_path / "a.jsonl", ROW), needs_experts=True) == []
    (problem,) = check_source(write(tmp_path / "b.jsonl", ROW | {"pass_ratio": 0}), needs_experts=True)
    assert "`solution`, with a pass_ratio above 0" in problem


GEO3K = "<image>Find x. Reason within <think> </think> tags. The final answer MUST BE put in \\boxed{}."


def shown_for_boxed_answers() -> Any:
    """Return the settings that the guide shows for data whose prompts request a boxed answer."""
    guide = (Path(__file__).parents[3] / "docs/how-to/data-formats.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (shown,) = [yaml.safe_load(block) for block in blocks if "boxed," in block]
    return shown


def geo3k(folder: Path) -> FileData:
    return write(folder / "geo3k.jsonl", ROW | {"prompt": [{"role": "user", "content": GEO3K}]})


def test_a_prompt_for_boxed_answers_stays_as_the_guide_says(tmp_path: Path, png: bytes) -> None:
    settings = TrainSettings.model_validate({"steps": 1, **shown_for_boxed_answers()})
    (example,) = data.load(geo3k(tmp_path))
    (turn,) = messages(example, settings.prompts)
    assert turn["content"] == [{"type": "image"}, {"type": "text", "text": GEO3K.removeprefix("<image>")}]
    with Scorer(settings.rewards) as scorer:
        right, bare = scorer.score_all([r"<think>1+2.</think> So \boxed{3}.", r"\boxed{3}"], [example.answer] * 2)
    assert (right.reward, right.strict, bare.reward, bare.strict) == (1.1, True, 1.0, False)


@pytest.mark.slow
def test_a_file_of_geo3k_trains_with_its_own_prompt(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []
    generate = SharedPrefillEngine.generate

    def recording(self: Any, examples: Any, request: Any) -> Any:
        rows = self._policy.encode(examples)
        kept = [tokens[mask.bool()] for tokens, mask in zip(rows.input_ids, rows.attention_mask, strict=True)]
        prompts.extend(self._policy.tokenizer.batch_decode(kept))
        return generate(self, examples, request)

    monkeypatch.setattr(SharedPrefillEngine, "generate", recording)
    settings = {"data": geo3k(tmp_path).model_dump(), "algorithm": {"type": "grpo", "mini_batches": 1}, "steps": 2}
    report = EventFile(tmp_path / "run")
    result = train(config(**settings, **shown_for_boxed_answers()), report, lambda: False)
    report.close()
    assert (result["status"], result["step"]) == ("succeeded", 2)
    written = GEO3K.removeprefix("<image>")
    assert len(prompts) >= 4
    assert all(prompt.count(written) == 1 and "<answer>" not in prompt for prompt in prompts)
    completions = [one for event in of_type(tmp_path / "run", "sample") for one in event["group"]["completions"]]
    assert all(one["rewards"].keys() == {"math", "format"} for one in completions)
