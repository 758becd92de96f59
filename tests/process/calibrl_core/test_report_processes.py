"""The data report with worker processes."""

import json
from pathlib import Path

import pytest

from calibrl_core.data.report import ReportSettings, check_data
from calibrl_core.data.schema import FileData
from calibrl_core.verifiers.math import MathReward

pytestmark = pytest.mark.slow


def test_answers_that_are_not_parsed_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    answers = ["\\frac{1}{2}", "\\frac{1}{", "2\\sqrt{3}", "\\frac{1}{", "7"]
    rows = [{"question": f"What is {place}?", "answer": answer} for place, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check_data(FileData(path=str(path)), ReportSettings([MathReward()], with_workers=True)).report
    assert report.truths == {"number": 2, "not parsed": 2, "expression": 1}
    (warning,) = report.warnings
    assert (warning.kind, warning.rows) == ("unparsed", [2, 4])
    assert "2 of 5 answers look like mathematics, but cannot be parsed (row 2: '\\frac{1}{')" in warning.message
