"""Spec files: YAML without its traps, paths made absolute, overrides, and faults in one line with their place."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from calibrl.specfile import SpecError, read_changes, read_config, read_spec
from calibrl_core.config import TrainConfig


def write(folder: Path, text: str, name: str = "spec.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    yaml_file = write(tmp_path, "kind: train\noptimizer: {lr: 1e-4}\nsteps: 3\n")
    json_file = write(tmp_path, '{"kind": "train", "optimizer": {"lr": 1e-4}, "steps": 3}', "spec.json")
    assert (
        read_spec(yaml_file, []) == read_spec(json_file, []) == {"kind": "train", "optimizer": {"lr": 1e-4}, "steps": 3}
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E+3", -2000.0),
        ("2026-01-01", "2026-01-01"),
        ("1e", "1e"),
        ("true", True),
        ("7", 7),
        ("0", 0),
        ("-3", -3),
        ("0x1f", 31),
        ("0o17", 15),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("yes", "yes"),
        ("off", "off"),
        ("n", "n"),
        ("~", None),
        ("null", None),
    ],
)
def test_scalars_are_parsed_by_their_form(tmp_path: Path, text: str, value: Any) -> None:
    assert read_spec(write(tmp_path, f"x: {text}"), []) == {"x": value}


@pytest.mark.parametrize(("text", "remedy"), [("0100", "write 100, or 0o100"), ("-007", "write 7, or 0o7")])
def test_a_number_with_a_leading_zero_is_refused(tmp_path: Path, text: str, remedy: str) -> None:
    with pytest.raises(SpecError, match=f"line 1, column 8: {text} has a leading zero: {remedy} for an octal number"):
        read_spec(write(tmp_path, f"steps: {text}"), [])


def test_merge_keys_still_work(tmp_path: Path) -> None:
    assert read_spec(write(tmp_path, "a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}"), [])["b"] == {"x": 1, "y": 2}


def test_paths_in_the_file_count_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    monkeypatch.chdir("/")
    text = """
model: {path: ../model}
models: [{path: m}, {from_job: x}]
data: {path: d.jsonl}
validation: {data: {path: /abs/v.jsonl}}
other: {path: untouched}
"""
    spec = read_spec(write(tmp_path / "specs", text), [])
    assert spec["model"] == {"path": str(tmp_path / "model")}
    assert spec["models"] == [{"path": str(tmp_path / "specs" / "m")}, {"from_job": "x"}]
    assert spec["data"] == {"path": str(tmp_path / "specs" / "d.jsonl")}
    assert spec["validation"]["data"] == {"path": "/abs/v.jsonl"}
    assert spec["other"] == {"path": "untouched"}


def test_the_paths_in_a_list_of_datasets_are_made_absolute_too(tmp_path: Path) -> None:
    assert read_spec(write(tmp_path, "data: [{path: d.jsonl}]"), []) == {"data": [{"path": str(tmp_path / "d.jsonl")}]}


def test_paths_given_as_overrides_count_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    spec = read_spec(write(tmp_path, "data: {builtin: digits}"), ["data={path: d.jsonl}", "model.path=m"])
    assert spec == {
        "data": {"path": str(tmp_path / "here" / "d.jsonl")},
        "model": {"path": str(tmp_path / "here" / "m")},
    }


def test_another_source_replaces_the_one_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "model: {builtin: tiny-vlm}\ndata: {path: /a.jsonl}")
    assert read_spec(file, ["model.from_job=abc", "data.path=/b.jsonl"]) == {
        "model": {"from_job": "abc"},
        "data": {"path": "/b.jsonl"},
    }


def test_another_source_removes_the_fields_of_the_previous_one(tmp_path: Path) -> None:
    file = write(
        tmp_path, "model: {from_job: a, checkpoint: best}\ndata: {path: /a.jsonl, columns: {answer: x}, rows: 5}"
    )
    changed = read_spec(file, ["data.answer=y", "data.dataset=d", "model.builtin=tiny-vlm"])
    assert changed == {"model": {"builtin": "tiny-vlm"}, "data": {"dataset": "d", "rows": 5, "answer": "y"}}


def test_another_type_removes_the_settings_of_the_previous_one(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "algorithm: {type: calibrl, negative_slope: 0.5}\n"
        "rewards: [{type: math, weight: 2, x: 1}]\nlabels: {type: a, b: c}",
    )
    overrides = ["algorithm.clip=0.1", "algorithm.type=grpo", "rewards.0.type=exact", "labels.type=d"]
    assert read_spec(file, overrides) == {
        "algorithm": {"type": "grpo", "clip": 0.1},
        "rewards": [{"type": "exact", "weight": 2}],
        "labels": {"type": "d", "b": "c"},
    }
    assert read_spec(file, ["algorithm.type=calibrl"])["algorithm"]["negative_slope"] == 0.5


def test_a_field_can_be_removed(tmp_path: Path) -> None:
    file = write(tmp_path, "data: {path: /a, columns: {answer: b}}\nmodels: [{path: /a, revision: c}]")
    assert read_spec(file, [], ["data.columns", "models.0.revision"]) == {
        "data": {"path": "/a"},
        "models": [{"path": "/a"}],
    }
    for path in ("data.nothing", "models.1.path", "models.x", "data.path.a"):
        with pytest.raises(SpecError, match=f"--unset '{path}': the spec has no such field"):
            read_spec(file, [], [path])
    assert read_changes(["steps=3"], ["data.columns"]) == {"steps": 3, "data": {"columns": None}}
    assert read_changes(["model.hub=a/b"], ["model.path"]) == {"model": {"hub": "a/b", "path": None}}


def test_overrides_reach_into_mappings_and_lists(tmp_path: Path) -> None:
    file = write(tmp_path, "steps: 1\nmodels: [{from_job: a}, {from_job: b}]")
    spec = read_spec(file, ["steps=2", "optimizer.lr=1e-4", "models.1.from_job=c", "labels={team: vision}", "name=a=b"])
    assert spec == {
        "steps": 2,
        "models": [{"from_job": "a"}, {"from_job": "c"}],
        "optimizer": {"lr": 1e-4},
        "labels": {"team": "vision"},
        "name": "a=b",
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\na: 2", "line 2, column 1: 'a' is given twice"),
        ("x:\n  a: 1\n  a: 2", "line 3, column 3: 'a' is given twice"),
        ("a: [1", "line 1, column 6: while parsing a flow sequence"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document"),
        ("a: !!python/object:os.system 1", "line 1, column 4: could not determine a constructor"),
        ("a: \x01", "unacceptable character"),
        ("", "the spec of a job is a mapping"),
        ("- a", "the spec of a job is a mapping"),
    ],
)
def test_a_yaml_fault_is_one_line_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        read_spec(file, [])
    assert str(caught.value).startswith(str(file))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [('{"a": 1, "a": 2}', "'a' is given twice"), ('{"a": 1,\n}', "line 2, column 1: "), ("[]", "is a mapping")],
)
def test_a_json_fault_is_one_line_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        read_spec(write(tmp_path, text, "spec.json"), [])


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(SpecError, match=r"nothing\.yaml: No such file or directory"):
        read_spec(tmp_path / "nothing.yaml", [])
    with pytest.raises(SpecError, match="Is a directory"):
        read_spec(tmp_path, [])
    with pytest.raises(SpecError, match=r"latin\.yaml: not UTF-8 text"):
        read_spec(tmp_path / "latin.yaml", [])


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("steps", "write it as key=value"),
        ("=1", "write it as key=value"),
        ("a..b=1", "write it as key=value"),
        ("steps.x=1", "not a mapping or a list"),
        ("models.1=x", "'1' is not an index of a list of 1"),
        ("models.-1=x", "'-1' is not an index"),
        ("models.one.path=x", "'one' is not an index"),
        ("steps=[1", "--set steps, line 1, column 3"),
    ],
)
def test_a_bad_override_is_one_line(tmp_path: Path, override: str, fault: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_spec(write(tmp_path, "steps: 1\nmodels: [{from_job: a}]"), [override])
    assert str(caught.value).startswith("--set")
    assert fault in str(caught.value)


def test_a_spec_becomes_the_config_of_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "kind: train\nname: x\nlabels: {a: b}\nmodel: {path: m}\ndata: {path: d.jsonl}\nsteps: 3\n"
    )
    config = read_config(tmp_path / "my.yaml", ["optimizer.lr=1e-5"])
    assert isinstance(config, TrainConfig)
    assert (config.steps, config.optimizer.lr) == (3, 1e-5)
    assert config.model_dump(mode="json")["model"]["path"] == str(tmp_path / "m")
    assert not {"kind", "name", "labels"} & config.model_dump().keys()
    with pytest.raises(SpecError, match="from_job is known to the service only"):
        read_config(tmp_path / "my.yaml", [f"model.from_job={UUID(int=1)}"])
