"""The objectives against the numbers of the paper's published loss code, through the command that users run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibrl_core import parity
from calibrl_core.algorithms import LUFFY, CalibRL, RLPlus, luffy

FILE = Path(__file__).parents[2] / "data" / "reference_losses.npz"
CASES = parity.load(FILE)
BY_METHOD = {case.settings.method: index for index, case in enumerate(CASES)}  # the last of each


@pytest.fixture
def arrays() -> Any:
    """The file's arrays, to be spoilt."""
    with np.load(FILE) as file:
        return dict(file)


def run(tmp_path: Path, arrays: Any) -> Any:
    path = tmp_path / "changed.npz"
    np.savez(path, **arrays)
    return parity.main([str(path)])


def test_the_file_has_every_method() -> None:
    assert len(CASES) == 12
    assert BY_METHOD.keys() == {"grpo", "calibrl", "luffy", "rl_plus"}


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.settings.method}" for i, case in enumerate(CASES)])
def test_published_numbers(case: Any) -> None:
    errors = parity.largest_errors(case)
    assert errors.keys() >= parity.RESULTS.keys()
    assert ("guided_loss" in errors) == (case.settings.method == "calibrl")
    assert max(errors.values()) < 1e-10  # the published means divide by the number of tokens + 1e-8


def test_the_command_prints_a_row_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main([str(FILE)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("agrees") == 12
    assert "12 of 12 cases agree to 1e-06" in printed


@pytest.mark.parametrize("name", [*parity.RESULTS, "guided_loss"])
def test_every_result_is_compared(tmp_path: Path, arrays: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    array = arrays[f"{BY_METHOD['calibrl']:02d}/{name}"]
    array[(0,) * array.ndim] += 2e-6
    assert run(tmp_path, arrays) == 1
    printed = capsys.readouterr().out
    assert printed.count("differs") == 1
    assert "11 of 12 cases agree" in printed


def test_a_number_that_is_not_finite_does_not_agree(tmp_path: Path, arrays: Any) -> None:
    arrays["03/total_loss"] = np.array(np.nan)
    assert run(tmp_path, arrays) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("negative_slope", 0.51),
        ("guidance_coefficient", 0.11),
        ("clip_low", 0.25),
        ("clip_high", 0.25),
        ("loss_aggregation", "seq-mean-token-sum-norm"),
        ("normalise_by_std", True),
        ("pass_threshold", 0.05),
    ],
)
def test_every_setting_counts(tmp_path: Path, arrays: Any, field: str, value: bool | float | str) -> None:
    cases = json.loads(str(arrays["cases"]))
    cases[BY_METHOD["calibrl"]][field] = value
    assert run(tmp_path, {**arrays, "cases": np.array(json.dumps(cases))}) == 1


@pytest.mark.parametrize(
    ("algorithm", "method"),
    [(CalibRL, "_guidance"), (LUFFY, "expert_losses"), (RLPlus, "expert_losses")],
)
def test_a_flipped_sign_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], algorithm: Any, method: str
) -> None:
    plain = getattr(algorithm, method)
    monkeypatch.setattr(algorithm, method, lambda self, batch: -plain(self, batch))
    assert parity.main([str(FILE)]) == 1
    assert capsys.readouterr().out.count("differs") == 3


def test_a_changed_constant_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(luffy, "SHAPING", 0.101)
    assert parity.main([str(FILE)]) == 1
    assert capsys.readouterr().out.count("differs") == 3


def without(arrays: Any, name: str) -> Any:
    return {key: value for key, value in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: without(a, "cases"), "an array is missing: cases"),
        (lambda a: without(a, "07/rewards"), "an array is missing: 07/rewards"),
        (lambda a: a | {"cases": np.array("no json")}, "cases is no JSON list"),
        (lambda a: a | {"cases": np.array("[]")}, "cases is empty"),
        (lambda a: a | {"cases": np.array('[{"method": "ppo"}]')}, "cases: 0.method: Input should be"),
        (lambda a: a | {"00/logprobs": a["00/logprobs"][:-1]}, "00/logprobs must be floating-point numbers of shape"),
        (lambda a: a | {"00/is_expert": a["00/is_expert"].astype(int)}, "00/is_expert must be booleans"),
        (lambda a: a | {"00/pg_loss": np.array([object()])}, "allow_pickle"),
        (lambda a: a | {"00/group_index": np.arange(15)}, "group 0 has fewer than two rollouts"),
    ],
)
def test_a_file_out_of_the_format(
    tmp_path: Path, arrays: Any, capsys: pytest.CaptureFixture[str], spoil: Any, message: str
) -> None:
    assert run(tmp_path, spoil(arrays)) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_file_that_is_not_npz_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.npz"
    path.write_text("not a zip file")
    assert parity.main([str(path)]) == 2
    assert parity.main([str(tmp_path / "absent.npz")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: not an .npz file",
        f"{tmp_path / 'absent.npz'}: No such file or directory",
    ]
    path.write_bytes(FILE.read_bytes()[:5000])
    assert parity.main([str(path)]) == 2
