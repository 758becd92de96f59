"""Reduces notations of an answer to their content, by named steps: delimiters, decoration, other writings of a sign.

Every step takes time linear in its text, so that it can run in the trainer's own process.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from calibrl_core.verifiers.base import strip_boxed

LONGEST = 500  # characters; a longer text is not an answer
# fmt: off
_COMMANDS = {
    "times": "×✕", "cdot": "⋅·∙", "div": "÷", "pm": "±", "le": "≤⩽", "ge": "≥⩾", "ne": "≠", "approx": "≈≒",
    "pi": "π", "theta": "θ", "alpha": "α", "beta": "β", "gamma": "γ", "lambda": "λ", "phi": "φϕ", "rho": "ρ",
    "sigma": "σ", "omega": "ω", "infty": "∞", "cup": "∪", "cap": "∩", "in": "∈", "emptyset": "∅", "angle": "∠",
    "triangle": "△▲", "perp": "⊥", "parallel": "∥", "cong": "≅", "sim": "∼", "circ": "∘", "to": "→", "sum": "∑",
}
_PLAIN = {
    "-": "−–—‒‐‑﹣", "%": "％", "'": "’‘ʼ`′", '"': "“”″", ",": "，、", ".": "。", ":": "：", ";": "；", "~": "～〜",
    " ": "\u00a0\u2009\u202f\u3000\u200b\ufeff", "μ": "µ", "Ω": "Ω", "K": "K", "Å": "Å", "[": "【〔", "]": "】〕",
    r"\frac{1}{2}": "½", r"\frac{1}{3}": "⅓", r"\frac{2}{3}": "⅔", r"\frac{1}{4}": "¼", r"\frac{3}{4}": "¾",
    r"\frac{1}{5}": "⅕", r"\frac{1}{8}": "⅛",
}
# fmt: on
_SIGNS = str.maketrans(
    {sign: rf"\{name} " for name, signs in _COMMANDS.items() for sign in signs}
    | {sign: text for text, signs in _PLAIN.items() for sign in signs}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FUNCTIONS = "sqrt|pi|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|infty|theta|alpha|beta"
_TEXT_COMMANDS = "text(?:rm|bf|it|sf|tt|up|normal)?|math(?:rm|bf|it|sf|tt|bb|cal)|boldsymbol|mbox|operatorname"


_BEYOND_ASCII = r"[^\x00-\x7f]"


class Step(NamedTuple):
    """One change of notation. `meaning` completes the sentence: the step ..."""

    name: str
    meaning: str
    trigger: re.Pattern[str]  # what the text must have for the step to change it: saves most of the time
    change: Callable[[str], str]

    def apply(self, text: str) -> str:
        """Return the changed text."""
        return self.change(text) if self.trigger.search(text) else text


def _rewriting(*pairs: tuple[str, str]) -> Callable[[str], str]:
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in pairs]

    def apply(text: str) -> str:
        for pattern, replacement in compiled:
            text = pattern.sub(replacement, text)
        return text

    return apply


def _unwrap(text: str) -> str:
    text = re.sub(r"\A.*<answer>|</answer>.*\Z", "", text, flags=re.DOTALL)
    return strip_boxed(text.rpartition("####")[2])


def _narrow(text: str) -> str:
    return unicodedata.normalize("NFC", text.translate(_WIDE))


def _exponents(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: f"^{{{found[0].translate(_RAISED)}}}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉₊₋]+", lambda found: f"_{{{found[0].translate(_LOWERED)}}}", text)
    return re.sub(r"\^ ?([+-] ?\d+|[+-]?[A-Za-z](?![A-Za-z]))", r"^{\1}", text.replace("**", "^"))


def _no_thousands(text: str) -> str:
    """Remove separators of thousands, unless the text has other commas, which separate values."""
    grouped = re.sub(
        r"(?<![\d.,(\[])(?<!\\\{)(\d{1,3}(?:,\d{3})+)(?![\d,])", lambda found: found[1].replace(",", ""), text
    )
    return text if "," in grouped and not re.search(r", ", grouped) else grouped


def _step(name: str, meaning: str, trigger: str, change: Callable[[str], str]) -> Step:
    return Step(name, meaning, re.compile(trigger), change)


STEPS = (
    _step("unwrap", r"takes the content of <answer>, of \boxed{}, or what follows ####", r"[<#]|\\f?box", _unwrap),
    _step("bold", "removes ** around the text", r"\*\*", _rewriting((r"^\s*\*\*|\*\*\s*$", ""))),
    _step("width", "narrows full-width letters and signs", _BEYOND_ASCII, _narrow),
    _step(
        "roots",
        r"writes √, ∛ and sqrt() as \sqrt{}",
        "[√∛]|sqrt",
        _rewriting(
            (r"√ ?\(([^()]*)\)|√ ?(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1\2}"),
            (r"∛ ?(\d+|[A-Za-z])", r"\\sqrt[3]{\1}"),
            (r"√", r"\\sqrt "),
            (r"(?<![A-Za-z\\])sqrt ?\(([^()]*)\)", r"\\sqrt{\1}"),
        ),
    ),
    _step(
        "degrees",
        r"writes ° as ^\circ",
        _BEYOND_ASCII,
        _rewriting((r"℃|°C\b", r"^\\circ C"), (r"℉|°F\b", r"^\\circ F"), (r"[°º˚]", r"^\\circ ")),
    ),
    _step("exponents", "writes exponents and indices with braces", rf"[\^*]|{_BEYOND_ASCII}", _exponents),
    _step("signs", "writes Unicode signs as LaTeX commands", _BEYOND_ASCII, lambda text: text.translate(_SIGNS)),
    _step(
        "spaces",
        "makes all spaces plain",
        r"[\\~{]",
        _rewriting(
            (r"\{,\}", ","),
            (r"(?<!\\)\\!", ""),
            (r"(?<!\\)\\[,;: ]|\\q?quad(?![A-Za-z])|(?<=[^\d\s])~|(?<=\S)~(?=\D)", " "),
        ),
    ),
    _step(
        "commands",
        "removes commands that only change the looks, and chooses one of several names of a command",
        r"\\",
        _rewriting(
            (r"\\(?:left|right|displaystyle|[bB]igg?)(?![A-Za-z])", ""),
            (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
            (r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}"),
            (r"\\(le|ge)(?:q|qslant)(?![A-Za-z])", r"\\\1"),
            (r"\\neq(?![A-Za-z])", r"\\ne"),
            (r"\\varnothing(?![A-Za-z])|\\\{ ?\\\}", r"\\emptyset "),
            (r"\\mu(?![A-Za-z])", "μ"),
            (r"\\(?:Omega|ohm)(?![A-Za-z])", "Ω"),
            (rf"\\(?:{_TEXT_COMMANDS})\s*\{{([^{{}}]*)\}}", r" \1 "),
        ),
    ),
    _step(
        "delimiters",
        "removes delimiters of mathematics and dollar signs, and writes other currencies after the number",
        r"[\\$%€£¥]",
        _rewriting((r"(?<!\\)\\[()\[\]]|\\?\$", ""), (r"\\%", "%"), (r"\A ?([€£¥]) ?(-?\d[\d.,]*)", r"\2 \1")),
    ),
    _step(
        "degree",
        r"writes ^\circ as a word, and angles of trigonometric functions in radians",
        r"\\(?:circ|degree)",
        _rewriting(
            (r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))", " degree "),
            (r"(\\(?:sin|cos|tan|cot|sec|csc)) ?[({]? ?(\d+(?:\.\d+)?) degree ?[)}]?", r"\1(\\frac{\2\\pi}{180})"),
        ),
    ),
    _step(
        "functions",
        "writes names of functions and comparisons as LaTeX commands",
        "[a-z<>!]",
        _rewriting(
            (rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])", r"\\\1"),
            (r"<=", r"\\le "),
            (r">=", r"\\ge "),
            (r"!=", r"\\ne "),
        ),
    ),
    _step(
        "powers of ten",
        r"writes 1e-05 as 1 \times 10^{-05}",
        r"\d[.eE]",
        _rewriting(
            (r"(?<![A-Za-z\\\d.])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,3})(?![A-Za-z\d.])", r"\1 \\times 10^{\2}")
        ),
    ),
    _step("thousands", "removes separators of thousands", ",", _no_thousands),
    _step(
        "lists",
        "writes `and` and `or` between values as commas",
        " (?:and|or) ",
        _rewriting((r"(?<=[\d)}\]]),? (?:and|or) (?=[\\\d(\[x-z-])", ", ")),
    ),
    _step(
        "lead",
        "removes a lead such as `The answer is`, a full stop, and a leading ≈",
        r"\s|[~.]|\\",
        _rewriting(
            (r"\s+", " "),
            (r"\A | \Z", ""),
            (r"(?i)\A(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct )?answer(?: is\b|:| =)[: ]*", ""),
            (r"(?<![a-z]\.[a-z])\.\Z", ""),
            (r"\A(?:\\approx|~) ?| \Z", ""),
        ),
    ),
    _step(
        "remark",
        "removes the parentheses of words after a number",
        r"\)",
        _rewriting((r"(?<=\d) ?\(([A-Za-z]{2,}(?: [A-Za-z]+)*)\)\Z", r" \1")),
    ),
)


def reductions(text: str) -> Iterator[tuple[Step, str]]:
    """Yield the steps that change the text, each with its result."""
    for step in STEPS:
        changed = step.apply(text)
        if changed != text:
            yield step, changed
        text = changed


@lru_cache(maxsize=4096)
def strip_decoration(text: str) -> str:
    """Return the text after all steps: its content, in LaTeX, with single spaces."""
    for step in STEPS:
        text = step.apply(text)
    return text


def without_spaces(text: str) -> str:
    """Return an undecorated text without the spaces that mean nothing: those that are not between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)
