"""Scores: right and hostile answers, and verifiers of installed packages."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import TrainConfig
from calibrl_core.data.schema import Example, completed
from calibrl_core.verifiers import ExactReward, FormatReward, MathReward, PluginReward
from calibrl_core.verifiers.base import follows_format
from calibrl_core.verifiers.plugin import PluginError, plugin_versions
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.scorer import Scorer
from tests.support.verifier_package import install, plugin, score_of


@pytest.fixture(scope="module")
def scorer() -> Iterator[Any]:
    with Scorer([MathReward(), FormatReward(weight=0.1)], workers=1) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("completion", "truth", "passed", "strict"),
    [
        ("<think>3+4=7.</think><answer>7</answer>", "7", True, True),
        ("<answer>7</answer>", "7", True, False),
        ("<think>a</think><answer>8</answer>", "7", False, False),
        ("<think>a</think><answer>07</answer>", "7", True, True),
        ("<think>a</think><answer>14/2</answer>", "7", True, True),
        ("<think>a</think><answer>\\sqrt{49}</answer>", "7", True, True),
        ("<think>a</think><answer>\\frac{1}{2}</answer>", "0.5", True, True),
        ("<think>a</think><answer>6</answer><answer>7</answer>", "7", True, False),
        ("7", "7", False, False),
        ("<answer></answer>", "7", False, False),
        ("<answer>" + "9**" * 400 + "9</answer>", "7", False, False),
        ("\ud800<answer>\\sqrt{49} \ud800</answer>", "7", False, False),  # no character at all
    ],
)
def test_scores(scorer: Scorer, completion: str, truth: str, passed: bool, strict: bool) -> None:
    found = score_of(scorer, completion, truth)
    assert (found.passed, found.strict, found.failure) == (passed, strict, None)
    assert isinstance(found.passed, bool)
    assert found.reward == pytest.approx(passed + 0.1 * follows_format(completion))
    assert found.by_verifier == {"math": float(passed), "format": float(follows_format(completion))}


def test_a_batch_keeps_its_order(scorer: Scorer) -> None:
    completions = [f"<answer>\\sqrt{{{n}^2}}</answer>" for n in range(20)]
    scores = scorer.score_all(completions, [str(n if n % 3 else 99) for n in range(20)])
    assert [score.passed for score in scores] == [n % 3 > 0 for n in range(20)]
    assert scorer.score_all([], []) == []


def test_answers_compared_as_text_start_no_process() -> None:
    with Scorer([MathReward(), ExactReward(), FormatReward()]) as scorer:
        answers = ["7", "07", "8", "7 cm", "50%", "\\frac{1}{2}", "yes", ""]
        scorer.score_all([f"<answer>{text}</answer>" for text in answers], ["7"] * len(answers))
        assert scorer._pool._workers == []


HOSTILE = (
    "9^{9^{9^9}}",
    "(((9!)!)!)!",
    "(x+y+z+w)^{500}",
    "{" * 400,
    "(" * 240 + "1" + ")" * 240,
    "\\frac{1+" * 60 + "1" + "}{2}" * 60,
)


def test_hostile_answers_cost_their_own_verdicts_only() -> None:
    """Some of these are judged in time, some are not, as the machine is: none passes, hangs, or spoils the next."""
    with Scorer([MathReward(time_limit_seconds=1.0)], workers=2) as scorer:
        answers = [one for hostile in HOSTILE for one in (hostile, f"\\sqrt{{{len(hostile)}^2}}")]
        truths = [truth for hostile in HOSTILE for truth in ("8x", str(len(hostile)))]
        scores = scorer.score_all([f"<answer>{answer}</answer>" for answer in answers], truths)
    assert [score.passed for score in scores] == [False, True] * len(HOSTILE)
    assert [score.failure for score in scores[1::2]] == [None] * len(HOSTILE)


def test_overruns_are_counted() -> None:
    with Scorer([MathReward(time_limit_seconds=0.5)], workers=1) as scorer:
        score = score_of(scorer, "<answer>(x+y+z+w)^{500}</answer>", "8x")
    assert score.failure == "math: no verdict within 0.5 seconds"


@pytest.mark.usefixtures("installed")
def test_workers_do_not_import_torch_and_can_print() -> None:
    with Scorer([plugin("loads_torch"), plugin("prints")], workers=1) as scorer:
        assert score_of(scorer, "").by_verifier == {"plugin-loads_torch": 0.0, "plugin-prints": 1.0}


@pytest.mark.usefixtures("installed")
def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    with Scorer([plugin("counts")], workers=1) as scorer:
        scores = scorer.score_all(["a", "b", "a", "a"], [str(tmp_path / "asked")] * 4)
    assert all(score.passed for score in scores)
    assert (tmp_path / "asked").read_text() == "ab"


def seen_by(scorer: Scorer, asked: Path, *completions: str) -> list[Any]:
    """Score completions of one prompt with an image of five bytes."""
    example = Example("1", "Which?", str(asked), images=(b"bytes",), item={"level": 3})
    return scorer.grade(completed([example], completions))


@pytest.mark.usefixtures("installed")
def test_a_plugin_of_one_argument_sees_the_whole_input(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with Scorer([plugin("sees"), plugin("prints")], workers=1) as scorer:
        scores = seen_by(scorer, asked, "a", "b")
        folder = Path(scorer._pool._images())
        assert list(folder.iterdir()) == []
    assert not folder.exists()
    assert [score.by_verifier for score in scores] == [{"plugin-sees": 0.75, "plugin-prints": 1.0}] * 2
    assert asked.read_text() == "a Which? [5] 3 ()\nb Which? [5] 3 ()\n"


@pytest.mark.usefixtures("installed")
def test_a_plugin_that_asks_sees_its_group(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with Scorer([plugin("sees", needs_group=True)], workers=1) as scorer:
        seen_by(scorer, asked, "a", "b")
        seen_by(scorer, asked, "a")
    assert [line.partition("3 ")[2] for line in asked.read_text().splitlines()] == ["('a', 'b')"] * 2 + ["('a',)"]


@pytest.mark.usefixtures("installed")
def test_equal_content_is_judged_once_per_run(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with Scorer([plugin("sees")], workers=1) as scorer:
        first, again = seen_by(scorer, asked, "a", "a")
        (later,) = seen_by(scorer, asked, "a")
    assert len(asked.read_text().splitlines()) == 1
    assert (first.seconds["plugin-sees"] > 0, first.cached) == (True, ())
    assert [(score.seconds, score.cached) for score in (again, later)] == [({}, ("plugin-sees",))] * 2


@pytest.mark.usefixtures("installed")
def test_a_failed_verdict_is_asked_for_again() -> None:
    with Scorer([plugin("raises", on_failure="stop")], workers=1) as scorer:
        scores = [score_of(scorer, "x") for _ in range(2)]
        assert [score.failure for score in scores] == ["plugin-raises: LookupError: x"] * 2
        assert [score.cached for score in scores] == [()] * 2
        assert scorer.stop_reason(scores) == "plugin-raises: LookupError: x"


def test_installed_plugins_are_found(installed: Path) -> None:
    verifiers: list[Reward] = [MathReward(), plugin("length"), plugin("exits", version="1.2")]
    assert plugin_versions(verifiers) == {"plugin-length": "1.2", "plugin-exits": "1.2"}
    assert Scorer(verifiers).versions == plugin_versions(verifiers)
    assert "org_verifiers" not in sys.modules
    with pytest.raises(PluginError, match=r"no verifier 'geometry' is installed.*backtracks 1.2, .*exits 1.2"):
        Scorer([plugin("geometry")])
    with pytest.raises(PluginError, match=r"'exits' is installed in version 1.2, not 2.0"):
        Scorer([plugin("exits", version="2.0")])
    install(installed.parent / "more", name="other", version="3", names=["exits"])
    sys.path.insert(0, str(installed.parent / "more"))
    with pytest.raises(PluginError, match=r"'exits' is installed twice, by org-verifiers 1.2 and other 3"):
        Scorer([plugin("exits")])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "why"), [("missing", "ModuleNotFoundError"), ("not_callable", "must be a function")])
def test_a_plugin_that_cannot_be_loaded_is_an_error(name: str, why: str) -> None:
    with Scorer([plugin(name)], workers=1) as scorer, pytest.raises(PluginError, match=why):
        score_of(scorer, "a")


def test_two_verifiers_of_one_name_are_refused() -> None:
    settings = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}, "steps": 1}
    two = [{"type": "plugin", "name": name} for name in ("a", "b")]
    assert len(TrainConfig.model_validate({**settings, "rewards": two}).rewards) == 2
    with pytest.raises(ValueError, match="two entries share a name"):
        TrainConfig.model_validate({**settings, "rewards": [*two, two[0]]})


def test_a_spec_names_no_path() -> None:
    for name in ("../verify", "/tmp/verify.py", "os:system", "a b", ""):
        with pytest.raises(ValueError, match="name"):
            PluginReward(name=name)
