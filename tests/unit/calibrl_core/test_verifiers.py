"""Verdicts of each verifier on pairs written by hand; `math` runs in this process, without a pool."""

from typing import Any

import pytest

from calibrl_core.verifiers import ChoiceReward, ExactReward, FormatReward, MathReward, NumericReward
from calibrl_core.verifiers.base import Deferred, extract_answer, final_answer, follows_format
from calibrl_core.verifiers.units import canonical_unit


def verdict(verifier: Any, answer: str, truth: str) -> Any:
    found = verifier.score(f"<answer>{answer}</answer>", truth)
    return verifier.judge(found.text, found.truth) if isinstance(found, Deferred) else found


RIGHT = [
    # numbers
    ("7", "7"),
    ("07", "7"),
    ("7.0", "7"),
    ("+7", "7"),
    ("−7", "-7"),
    (".5", "0.5"),
    ("7.", "7"),
    ("1,234", "1234"),
    ("1{,}000", "1000"),
    ("1 000 000", "1000000"),
    ("1.6e-19", r"1.6\times 10^{-19}"),
    ("0.333333", "1/3"),
    ("3.141593", r"\pi"),
    # fractions
    ("14/2", "7"),
    (r"\frac{1}{2}", "0.5"),
    (r"\dfrac34", "0.75"),
    ("½", r"\frac12"),
    (r"1\frac{1}{2}", "1.5"),
    ("1 1/2", r"\frac{3}{2}"),
    ("-3/4", r"-\frac{3}{4}"),
    # roots, powers, functions
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("√8", r"2\sqrt2"),
    ("2*sqrt(2)", r"2\sqrt{2}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    ("2^{10}", "1024"),
    ("3**2", "9"),
    ("3!", "6"),
    ("101_2", "101_{2}"),
    (r"\log_2 8", "3"),
    (r"\sin(\pi/6)", "0.5"),
    ("9π", r"9\pi"),
    ("|-7|", "7"),
    (r"\binom{5}{2}", "10"),
    # dress
    (r"\boxed{7}", "7"),
    (r"so \boxed{\frac{1}{2}}", "0.5"),
    ("$7$", r"\(7\)"),
    ("**7**", "7"),
    (r"\text{7}", "7"),
    ("The answer is 7.", "7"),
    (r"\left(\frac{1}{2}, 3\right)", "(0.5, 3)"),
    # units, percentages, money
    ("5 cm", "5"),
    ("5", r"5\,\text{cm}"),
    ("5 cm", "5 centimeters"),
    ("5cm", "5 cm"),
    (r"12\ \mathrm{cm}^2", "12 cm²"),
    ("12 square units", "12"),
    (r"2\sqrt{3} cm", r"\sqrt{12}"),
    ("5 m", "5m"),
    ("60 kilometers per hour", "60 km/h"),
    (r"30^\circ", "30"),
    ("30°", "30 degrees"),
    ("12 apples", "12"),
    (r"50\%", "0.5"),
    ("50%", "50"),
    ("12.5 percent", r"\frac{1}{8}"),
    (r"\frac{25}{2}\%", "0.125"),
    ("$5", "5 dollars"),
    # sets, intervals, tuples, matrices
    (r"\{3, 2, 1\}", "1, 2, 3"),
    ("2 or 3", r"\{2,3\}"),
    ("x=2, x=3", r"\{2,3\}"),
    (r"\pm 7", "7, -7"),
    ("[1,2)", r"1 \le x < 2"),
    ("1 <= x < 2", "[1,2)"),
    (r"(-\infty, 2)", "x<2"),
    (r"(1,2) \cup (3,4)", "(3,4)∪(1,2)"),
    ("(3,1)", "(3, 1)"),
    ("[1, 2, 3]", "[1,2,3]"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    # algebra
    ("(x-1)(x+1)", "x^2-1"),
    (r"10 \cdot 10^{399}", r"10^{400}"),
    ("y=1+2x", "2x+1=y"),
    ("x = 7", "7"),
    ("7", "x=7"),
    ("3+4=7", "7"),
    (r"\sqrt{50} \approx 7.07", r"5\sqrt{2}"),
    (r"\sqrt{50} \approx 7.07", "7.07"),
    # words and options
    (r"\text{Yes}", "yes"),
    ("no solution", "No solution."),
    ("(B)", "B"),
    ("B. 12 cm", "B"),
]

WRONG = [
    ("8", "7"),
    ("", "7"),
    ("$$", "7"),
    ("-7", "7"),
    ("70", "7"),
    ("10,000", "10"),
    ("0.33", "1/3"),
    ("3.14", r"\pi"),
    ("22/7", r"\pi"),
    ("1000000.5", "1000000"),
    ("999999999999", "1000000000000"),
    # several values where one is asked for
    ("7 or 8", "7"),
    ("7, 8", "7"),
    ("6, 7, 8", "7"),
    ("[6,8]", "7"),
    (r"\{6,7\}", "7"),
    (r"\pm 7", "7"),
    ("x=6, x=7", "7"),
    ("$7$ or $8$", "7"),
    (r"7 \text{ or } 8", "7"),
    (r"7 \lor 8", "7"),
    ("7 8", "7"),
    ("7 8", "8"),
    ("3 4", "7"),  # LaTeX would read a sum
    (r"3\,4", "7"),
    ("7 8", "78"),
    ("8 = 7", "7"),
    ("7 = 8", "8"),
    (r"7 \approx 8", "7"),
    ("x > 6", "7"),
    (r"x \ge 7", "7"),
    ("7x", "7"),
    *(
        (text, "7")
        for text in ("7;8", "7|8", r"7 \\ 8", "7:8", "6-8", "7±1", "7!", "x=7, y=8", "eight", r"8 \to 7", "[7")
    ),
    ("101_2", "101_3"),
    # small numbers
    ("0", "1.6e-19"),
    ("0.0000001", "0.0000002"),
    (r"\frac{2}{10^{8}}", r"\frac{1}{10^{8}}"),
    # units
    ("5 cm", "5 m"),
    ("5 cm", r"5\text{ cm}^2"),
    ("5 apples", "5 pears"),
    ("3", "3t"),
    ("3", "3 t"),
    ("3", "3 xyz"),
    ("5 cm", "50%"),
    ("50", "0.5%"),
    ("0.5", "0.5%x"),
    # words, order, openness
    ("east", "seat"),
    ("SAS", "SSA"),
    ("yes", "no"),
    ("yes", "7"),
    ("(3,1)", "(1,3)"),
    ("(2,1)", "(3,1)"),
    ("(1,1)", "(2,2)"),
    ("(1,2)", "[1,2]"),
    ("[1,2)", r"1 < x < 2"),
    ("(1,2,3)", "(3,2,1)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"\infty", r"-\infty"),
    ("x=7", "y=7"),
    ("C", "B"),
    ("B or C", "B"),
    # no sense
    (r"\frac{1}{0}", "7"),
    ("0/0", "0"),
    ("nan", "7"),
    (r"\frac{", "7"),
    ("}{", "7"),
    ("__import__('os').getpid()", "7"),
]


@pytest.mark.parametrize(("answer", "truth"), RIGHT)
def test_math_right(answer: str, truth: str) -> None:
    assert verdict(MathReward(), answer, truth) == 1.0


@pytest.mark.parametrize(("answer", "truth"), WRONG)
def test_math_wrong(answer: str, truth: str) -> None:
    assert verdict(MathReward(), answer, truth) == 0.0


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("7", "7", True),
        ("7.006", "7", True),  # within a thousandth
        ("7.008", "7", False),
        ("6.994", "7", True),
        ("-7", "7", False),
        ("x = 7", "7", True),
        ("7 cm", "7", True),
        ("7 cm", "7 m", False),
        ("1,234.5", "1234.5", True),
        ("$1,234", "1234 dollars", True),
        (r"1.6\times 10^{-19}", "1.6e-19", True),
        ("0", "1.6e-19", False),
        (r"\frac{22}{7}", "3.142", True),
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("0.5", "50%", True),
        ("0.5", "50", False),
        ("7 or 8", "7", False),
        ("7, 8", "7", False),
        ("7 8", "7", False),
        ("about 7", "7", False),
        ("7 = 8", "7", False),
        ("seven", "7", True),
        ("1e9999", "7", False),
        ("7/0", "7", False),
        ("7", "seven", True),
        ("nan", "nan", False),
        ("7" * 600, "7" * 600, False),
        ("", "7", False),
    ],
)
def test_numeric(answer: str, truth: str, right: bool) -> None:
    assert verdict(NumericReward(), answer, truth) == float(right)


def test_the_tolerances_of_numeric() -> None:
    assert verdict(NumericReward(relative_tolerance=0, absolute_tolerance=0.5), "7.5", "7") == 1.0
    assert verdict(NumericReward(relative_tolerance=0, absolute_tolerance=0.5), "7.51", "7") == 0.0
    assert verdict(NumericReward(relative_tolerance=0), "7.0", "7") == 1.0
    assert verdict(NumericReward(relative_tolerance=0.1), "-90", "-100") == 1.0
    assert verdict(NumericReward(relative_tolerance=0.1), "-89", "-100") == 0.0


@pytest.mark.parametrize(
    ("decimals", "answer", "truth", "right"),
    [
        (2, "3.14", "3.14159", True),
        (2, "3.15", "3.14159", False),
        (2, "0.125", "0.13", True),  # a half is rounded away from 0
        (2, "-0.125", "-0.13", True),
        (0, "2.5", "3", True),
        (0, "2.4", "3", False),
        (1, "1/3", "0.3", True),
        (0, "1000.4", "1000", True),
        (0, "1001", "1000", False),  # within the relative tolerance, which does not count
        (1, "3.1 cm", "3.14 m", False),
    ],
)
def test_numeric_compares_rounded_numbers(decimals: int, answer: str, truth: str, right: bool) -> None:
    assert verdict(NumericReward(decimals=decimals), answer, truth) == float(right)


def test_numeric_takes_decimals_or_tolerances() -> None:
    with pytest.raises(ValueError, match="set either decimals or tolerances"):
        NumericReward(decimals=2, absolute_tolerance=0.1)
    settings = NumericReward(decimals=2)
    assert NumericReward.model_validate(settings.model_dump()) == settings
    assert settings.decimals == 2


@pytest.mark.parametrize(
    "answer", ["The answer is (B)", r"\boxed{\text{B}}", "B.", "**B**", "(b)", "Option B", "**(B)** 12 cm", "[B]"]
)
def test_choice_reads_what_models_write(answer: str) -> None:
    assert verdict(ChoiceReward(), answer, "B") == 1.0
    assert verdict(ChoiceReward(), answer, "C") == 0.0


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        *(
            (text, "B", True)
            for text in ("B", "b", "(B)", "B.", "B)", "[B]", "**B**", r"\boxed{B}", r"\text{B}", "$B$")
        ),
        ("The answer is B", "B", True),
        ("Option B", "(B)", True),
        ("The correct choice is (B).", "B", True),
        ("B. 12 cm", "B", True),
        ("(B) 12 cm", "B. 12 cm", True),
        ("12 cm", "B. 12 cm", True),
        ("12 CM", "(B) 12 cm", True),
        ("B", "B. 12 cm", True),
        ("C", "B", False),
        ("C. 12 cm", "B. 12 cm", False),
        ("13 cm", "B. 12 cm", False),
        ("12 cm", "B", False),
        ("A or B", "B", False),
        ("B or C", "B", False),
        ("B. or C.", "B", False),
        ("B, C", "B", False),
        ("B. 12 cm, C. 13 cm", "B", False),
        ("(A) (B)", "A", False),
        ("AB", "B", False),
        ("Because", "B", False),
        ("", "B", False),
        ("", "", False),
    ],
)
def test_choice(answer: str, truth: str, right: Any) -> None:
    assert verdict(ChoiceReward(), answer, truth) == float(right)


def test_exact() -> None:
    assert verdict(ExactReward(), " Ab c ", "Ab c\n") == 1.0
    assert verdict(ExactReward(), r"\boxed{Ab}", "Ab") == 1.0
    assert verdict(ExactReward(), "ab c", "Ab c") == 0.0
    assert verdict(ExactReward(ignore_case=True), "ab c", "Ab c") == 1.0
    assert verdict(ExactReward(), "", "") == 0.0
    assert ExactReward().score("7", "7") == 0.0  # no <answer>


@pytest.mark.parametrize(
    ("completion", "follows"),
    [
        ("<think>a</think><answer>7</answer>", True),
        (" <think>a\nb</think>\n <answer>7</answer>\n", True),
        ("<answer>7</answer>", False),
        ("<think></think><answer>7</answer>", False),
        ("<think>a</think><answer></answer>", False),
        ("<think>a</think>so<answer>7</answer>", False),
        ("<think>a</think><answer>7</answer>.", False),
        ("<think>a</think><answer>6</answer><answer>7</answer>", False),
        ("<think>a<answer>b</think>7</answer>", False),
        ("<think>a</think><think>b</think><answer>7</answer>", False),
        ("<answer>7</answer><think>a</think>", False),
    ],
)
def test_format(completion: str, follows: bool) -> None:
    assert follows_format(completion) is follows
    assert FormatReward().score(completion, "any") == float(follows)


def test_the_last_complete_answer_is_extracted() -> None:
    assert extract_answer("<answer>6</answer> no, <answer> 7 </answer>") == "7"
    assert extract_answer("<answer>6</answer> or <answer>7</answer></answer> or <answer>8") == "7"
    assert extract_answer("<answer>7") is extract_answer("7</answer>") is extract_answer("</answer><answer>") is None
    assert final_answer(r"<answer>so \boxed{\frac{1}{2}} it is</answer>") == r"\frac{1}{2}"
    assert final_answer(r"<answer>\boxed{1} or \boxed{2}, so \boxed{2}</answer>") == "1, 2"
    assert final_answer(r"<answer>\boxed{1</answer>") == r"\boxed{1"
    assert final_answer(r"\boxed{7}") is None  # outside


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 200_000,
        "</think><answer>" * 100_000,
        "<think>" + "</think><answer>" * 100_000 + "</answer>",
        "<answer>" + r"\boxed{" * 100_000 + "</answer>",
        "<answer>" + "{" * 490 + "</answer>",
        "<answer>" + "1," * 245 + "</answer>",
        "<answer>" + " 1" * 245 + "</answer>",
        "<answer>" + "9 a" * 160 + "</answer>",
        "<answer>" + r"\text{" * 80 + "</answer>",
        "<answer>" + "(A) " * 120 + "</answer>",
    ],
)
def test_hostile_text_is_read_in_linear_time(text: str) -> None:
    """A regular expression that went over the text once for each of its tags would run for minutes: pytest's limit."""
    for verifier in (MathReward(), ChoiceReward(), ExactReward(), NumericReward(), FormatReward()):
        for truth in ("B", "7", r"\frac{1}{2}"):
            assert verifier.score(text, truth) != 1.0


def test_units() -> None:
    assert canonical_unit("square centimetres") == canonical_unit("cm^2") == canonical_unit("sq. cm") == "cm^2"
    assert canonical_unit("meters per second") == canonical_unit("m/s") == "m/s"
    assert canonical_unit("units") == canonical_unit("square units") == ""
    assert canonical_unit("xyz") is canonical_unit("or") is canonical_unit("maybe") is None
    assert canonical_unit("m", attached=True) is canonical_unit("apples", attached=True) is None
