"""`calibrl verify`: the verdict is the exit code, and --explain names the steps."""

import pytest
from typer.testing import CliRunner

from calibrl.cli import app


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["5 kΩ", r"5\,\text{k}\Omega"], 0, ["right"]),
        (["2:30", "1:15"], 1, ["wrong"]),
        (["B", "B or C", "--verifier", "choice"], 1, ["wrong"]),
        (
            [r"\boxed{1}, \boxed{2}", "１,２００", "--explain"],
            1,
            ["unwrap: 1, 2", "read as a mathematical expression", "width: 1,200", "read as the number 1200"],
        ),
        (["\\frac{1}{", "(((", "--explain"], 1, ["read as text that cannot be parsed: only the same characters pass"]),
        (["9 (apples)", "9", "--explain"], 0, ["remark: 9 apples", "read as the number 9 with the unit apple"]),
        (["2:30", "1:15", "--explain"], 1, ["because they are compared as a time"]),
        (["SAS", "SSA", "--explain"], 1, ["because words are compared without their case"]),
        (["5 S", "5", "--explain"], 0, ["a symbol after one of them can be its unit"]),
        ([r"\frac{1}{2}", "0.5x", "--explain"], 1, ["because mathematical expressions are compared"]),
        (["B. 12", "12", "--verifier", "choice", "--explain"], 0, ["because the texts of the options are compared"]),
        (["2.345", "2.35", "--verifier", '{"type": "numeric", "decimals": 2}'], 0, ["right"]),
        (["x + 1", r"\boxed{x + 1}", "--verifier", '{"type": "exact", "answer_in": "boxed"}'], 0, ["right"]),
    ],
)
def test_a_verdict_and_its_reason(arguments: list[str], code: int, parts: list[str]) -> None:
    result = CliRunner().invoke(app, ["verify", *arguments])
    assert result.exit_code == code
    assert [part for part in parts if part not in result.stdout] == []


def test_a_verifier_that_reads_by_no_step_shows_none() -> None:
    result = CliRunner().invoke(app, ["verify", "１", "1", "--verifier", "exact", "--explain"])
    assert result.stdout.split() == ["wrong", "because", "characters", "are", "compared", "as", "they", "are"]


@pytest.mark.parametrize(
    "verifier", ['{"type": "numeric"', '{"type": "numeric", "decimal": 2}', "http", "string_check"]
)
def test_a_verifier_that_cannot_explain_is_refused(verifier: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        app(["verify", "1", "1", "--verifier", verifier], prog_name="calibrl")
    assert end.value.code == 2 and "verifier '" in capsys.readouterr().err


def test_an_unknown_verifier_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        app(["verify", "1", "1", "--verifier", "nope"], prog_name="calibrl")
    assert end.value.code == 2 and "verifier 'nope'" in capsys.readouterr().err
