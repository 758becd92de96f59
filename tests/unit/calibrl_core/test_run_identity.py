"""A resumed run is the run that wrote the checkpoint: same data, base model and fixed settings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import PathModel
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.report import EventFile
from calibrl_core.run.identity import ResumeError, RunIdentity, data_digest, model_digest
from calibrl_core.train import train
from tests.support.training import DIGITS, config, of_type

SFT = {"algorithm": {"type": "sft"}, "rollout": {"max_completion_tokens": 200}}
LORA = {"builtin": "tiny-vlm", "lora": {"rank": 2, "alpha": 4}}


def run(folder: Path, **changes: Any) -> Any:
    """Train; return the log messages of this run."""
    folder.mkdir(exist_ok=True)
    report = EventFile(folder)
    before = len(of_type(folder, "log"))
    train(config(**{**SFT, "steps": 1, **changes}), report, lambda: False)
    report.close()
    return [event["message"] for event in of_type(folder, "log")[before:]]


def test_a_resume_with_other_data_is_refused_and_steps_may_change(tmp_path: Path) -> None:
    assert run(tmp_path) == []
    assert run(tmp_path, steps=2, optimizer={"lr": 1e-4}) == [
        "resumes with changed settings: optimizer.lr from 0.001 to 0.0001; steps from 1 to 2"
    ]
    with pytest.raises(ResumeError) as caught:
        run(tmp_path, steps=3, data={**DIGITS, "rows": 5})
    assert str(caught.value) == (
        "data: the rows are not those that the run started with: restore it, or start a new run in another folder"
    )
    (checkpoint,) = (tmp_path / "checkpoints").glob("step-000002")
    state = json.loads((checkpoint / "trainer.json").read_text())
    state.pop("identity")  # as earlier versions wrote it
    (checkpoint / "trainer.json").write_text(json.dumps(state))
    assert run(tmp_path, steps=3, data={**DIGITS, "rows": 5}) == [
        "resumes without a comparison of data and base model: the checkpoint names none"
    ]
    with pytest.raises(ResumeError, match="data: the rows"):  # the new checkpoint names them
        run(tmp_path, steps=4)


def identity(saved: Any = None, ranks: Ranks = ALONE, **changes: Any) -> RunIdentity:
    return RunIdentity(config(**changes), saved, ranks)


@pytest.mark.parametrize(
    ("before", "now", "field"),
    [
        ({}, {"prompts_per_step": 4}, "prompts_per_step is 4, but the run started with 2"),
        ({}, {"seed": 1}, "seed is 1, but the run started with 0"),
        ({}, {"shuffle_data": False}, "shuffle_data is false, but the run started with true"),
        ({}, {"unearnable": "drop"}, 'unearnable is "drop", but the run started with "error"'),
        (
            {},
            {"algorithm": {"type": "grpo", "mini_batches": 2}},
            'algorithm.type is "grpo", but the run started with "calibrl"',
        ),
        ({}, {"model": {"builtin": "tiny-vlm", "seed": 1}}, "model: the weights are not those"),
        (
            {"model": LORA},
            {"model": {**LORA, "lora": {"rank": 2, "alpha": 64}}},
            "model.lora.alpha is 64.0, but the run started with 4.0",
        ),
        ({}, {"prompts": {"system": "Be brief."}}, 'prompts.system is "Be brief.", but the run started with null'),
        ({}, {"model": LORA}, "model.lora.rank is 2, but the run started with null"),
    ],
)
def test_a_change_of_meaning_is_refused(before: dict[str, Any], now: dict[str, Any], field: str) -> None:
    saved = json.loads(json.dumps(identity(**before).values))
    with pytest.raises(ResumeError, match=f"^{field}"):
        identity(saved, **now)


def test_settings_that_the_checkpoint_does_not_know_are_not_compared() -> None:
    saved = json.loads(json.dumps(identity().values))
    del saved["settings"]["shuffle_data"], saved["settings"]["diagnostics"]
    assert identity(saved, shuffle_data=False, diagnostics={"gradients_every": 3}).notes == []


def test_the_refusal_of_the_first_process_is_that_of_all() -> None:
    class Second(Ranks):
        rank, world = 1, 2

        def from_first(self, value: Any) -> Any:
            return ["data: other rows"]

    with pytest.raises(ResumeError, match="data: other rows"):
        identity(ranks=Second())


def test_the_model_digest_covers_content_and_not_location(tmp_path: Path) -> None:
    def saved(name: str, weights: bytes) -> str | None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        return model_digest(PathModel(path=str(tmp_path / name)))

    plain = bytes(300_000)
    assert saved("one", plain) == saved("moved", plain)
    (tmp_path / "moved" / "optimizer.safetensors").write_bytes(b"moments")
    assert model_digest(PathModel(path=str(tmp_path / "moved"))) == model_digest(PathModel(path=str(tmp_path / "one")))
    assert saved("other", plain[:-1] + b"\1") != saved("longer", plain + b"\0") != saved("again", plain)
    assert model_digest(PathModel(path=str(tmp_path / "gone"))) is None


def test_the_data_digest_covers_what_is_learned_and_its_order(examples: list[Example]) -> None:
    first, second = examples[:2]
    changed: list[dict[str, Any]] = [
        {"question": "?"},
        {"answer": "?"},
        {"expert": "?"},
        {"images": ()},
        {"data_source": "?"},
    ]
    digests = [data_digest([replace(first, **change), second]) for change in changed]
    assert len({data_digest([first, second]), data_digest([second, first]), *digests}) == 7
    assert data_digest([replace(first, id="moved")]) == data_digest([first])
