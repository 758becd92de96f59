"""Reduces notations of an answer to their content, by named steps: delimiters, decoration, other writings of a sign.

Every step takes time linear in its text, so that it can run in the trainer's own process.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from calibrl_core.verifiers.base import strip_boxed
from calibrl_core.verifiers.layouts import one_layout, one_line
from calibrl_core.verifiers.numerals import exact_repeating, without_magnitudes, words_as_digits

LONGEST = 500  # characters; a longer text is not an answer
# fmt: off
_COMMANDS = {
    "times": "×✕", "cdot": "⋅·∙", "div": "÷", "pm": "±", "le": "≤⩽", "ge": "≥⩾", "ne": "≠", "approx": "≈≒",
    "pi": "π", "theta": "θ", "alpha": "α", "beta": "β", "gamma": "γ", "lambda": "λ", "phi": "φϕ", "rho": "ρ",
    "sigma": "σ", "omega": "ω", "infty": "∞", "cup": "∪", "cap": "∩", "in": "∈", "emptyset": "∅", "angle": "∠",
    "triangle": "△▲", "perp": "⊥", "parallel": "∥", "cong": "≅", "sim": "∼", "circ": "∘", "to": "→", "sum": "∑",
    "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉",
}
_PLAIN = {
    "-": "−–—‒‐‑﹣", "%": "％", "'": "’‘ʼ`′", '"': "“”″", ",": "，、", ".": "。", ":": "：∶", ";": "；", "~": "～〜",
    " ": "\u00a0\u2009\u202f\u3000\u200b\ufeff", "μ": "µ", "Ω": "Ω", "K": "K", "Å": "Å", "[": "【〔", "]": "】〕",
    r"\frac{1}{2}": "½", r"\frac{1}{3}": "⅓", r"\frac{2}{3}": "⅔", r"\frac{1}{4}": "¼", r"\frac{3}{4}": "¾",
    r"\frac{1}{5}": "⅕", r"\frac{1}{8}": "⅛", r"\frac{3}{8}": "⅜", r"\frac{5}{8}": "⅝", r"\frac{7}{8}": "⅞",
    r"\frac{1}{6}": "⅙", r"\frac{5}{6}": "⅚", r"\frac{2}{5}": "⅖", r"\frac{3}{5}": "⅗", r"\frac{4}{5}": "⅘",
    "/": "⁄∕", "...": "…",
}
# fmt: on
_SIGNS = str.maketrans(
    {sign: rf"\{name} " for name, signs in _COMMANDS.items() for sign in signs}
    | {sign: text for text, signs in _PLAIN.items() for sign in signs}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_STYLED = re.compile("[\U0001d400-\U0001d7ff]")  # letters of mathematics in italics, bold ...
_FUNCTIONS = "sqrt|pi|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|infty|theta|alpha|beta"
_BEFORE_FACTOR = (  # \\sin x \\cdot y, which the parser would read as the sine of a product
    r"(\\(?:sin|cos|tan|cot|sec|csc|ln)(?:\^ ?\{?\d\}?)?) ?([a-z]|\\(?:pi|theta|alpha|beta)(?![A-Za-z])|(?<=ln )\d+)"
    r"(?= ?\\(?:cdot|times)(?![A-Za-z]))"
)
_TEXT_COMMANDS = "rm|text(?:rm|bf|it|sf|tt|up|normal)?|math(?:rm|bf|it|sf|tt|bb|cal)|boldsymbol|mbox|operatorname"


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


def _rewriting(*pairs: tuple[str, str | Callable[[re.Match[str]], str]]) -> Callable[[str], str]:
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
    text = _STYLED.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text.translate(_WIDE))
    return unicodedata.normalize("NFC", text)


def _exponents(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: f"^{{{found[0].translate(_RAISED)}}}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉₊₋]+", lambda found: f"_{{{found[0].translate(_LOWERED)}}}", text)
    return re.sub(r"\^ ?([+-] ?\d+|[+-]?[A-Za-z](?![A-Za-z]))", r"^{\1}", text.replace("**", "^"))


def _no_thousands(text: str) -> str:
    """Remove separators of thousands, unless the text has other commas, which separate values. Indian numbers have
    groups of two digits before the last group.
    """
    grouped = re.sub(
        r"(?<![\d.,(\[])(?<!\\\{)(\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d\d)+,\d{3})(?![\d,])",
        lambda found: found[1].replace(",", ""),
        text,
    )
    return text if "," in grouped and not re.search(r", ", grouped) else grouped


_AMOUNT = r"(?P<amount>-? ?\d[\d.,]*)"
_DOLLARS = re.compile(rf"\A *(?P<sign>-? ?)(?:US|A|C|HK|NZ|CA|AU)?\\?\$ ?{_AMOUNT}")
_CURRENCY = re.compile(
    rf"\A *(?P<sign>-? ?)(?P<unit>[€£¥₹]|USD|EUR|GBP|INR|JPY|CNY|RMB|Rs\.?|\\pounds|\\euro) ?{_AMOUNT}"
)
_MATHEMATICS = re.compile(r" *(?<!\\)\$((?:[^$\\]|\\.)*)\$ *")


def _after_number(text: str) -> str:
    """Write a currency after its number. `$5$` is mathematics, and `$5` an amount."""
    if whole := _MATHEMATICS.fullmatch(text):
        text = whole[1]
    elif text.count("$") - text.count(r"\$") > 1:
        return text
    text = _DOLLARS.sub(r"\g<sign>\g<amount> dollars", text)
    return _CURRENCY.sub(r"\g<sign>\g<amount> \g<unit>", text)


# In inequalities, `or` and `and` make a difference: only texts without them are lists.
_AND_OR = re.compile(r"(?<=[\d)}\]])(?:,? (?:and|or) | ?[和或] ?)(?=[\\\d(\[x-z-]|[A-Za-w] ?=)")


_BASES = {"b": 2, "o": 8, "x": 16}


def _infinity(found: re.Match[str]) -> str:
    return "-\\infty " if (found[1] or "").lower() in ("negative", "minus") else "\\infty "


def _step(name: str, meaning: str, trigger: str, change: Callable[[str], str]) -> Step:
    return Step(name, meaning, re.compile(trigger), change)


STEPS = (
    _step("unwrap", r"takes the content of <answer>, of \boxed{}, or what follows ####", r"[<#]|\\f?box", _unwrap),
    _step(
        "emphasis",
        "removes Markdown's signs and quotation marks around the text",
        r"[*_`\"“”#]",
        _rewriting(
            (r"(?<![\w)}])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w({])", r"\1"),
            (r"\A\s*([*_`]{1,3}|\")(?=\S)(.*\S)\1\s*\Z", r"\2"),
            (r"\A\s*[“”](.*)[“”]\s*\Z", r"\1"),
            (r"\A\s*#{1,6} (?=\S)", ""),
            (r"\A\s*\*\*(?=\S)|(?<=\S)\*\*\s*\Z", ""),
        ),
    ),
    _step("lines", "joins the lines of a list by commas, without bullets", r"\n", one_line),
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
            (r"\\sqrt(\[\d+\])? ?(\d+)", r"\\sqrt\1{\2}"),
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
            (r"\{([,.])\}", r"\1"),
            (r"(?<=\d,)\\! (?=\d{3}(?!\d))|(?<!\\)\\!", ""),
            (r"(?<!\\)\\[,;: ]|\\q?quad(?![A-Za-z])|(?<=[^\d\s])~|(?<=\S)~(?=\D)", " "),
        ),
    ),
    _step(
        "reals",
        r"writes the set of all real numbers as (-\infty,\infty)",
        r"\\math(?:bb|bf)|ℝ|real",
        _rewriting(
            (
                r"\\math(?:bb|bf) ?(?:\{ ?R ?\}|R)|ℝ|(?:the set of )?all real numbers|\\text ?\{ ?all real numbers ?\}",
                "R_",
            ),
            (r"\A *(?:[a-z] ?(?:\\in|∈) ?)?R_ *\Z", r"(-\\infty,\\infty)"),
            (r"R_", "R"),
        ),
    ),
    _step(
        "commands",
        "removes commands that only change the looks, and chooses one of several names of a command",
        r"\\",
        _rewriting(
            (r"\\(?:left|right|displaystyle|[bB]igg?[lrm]?)(?![A-Za-z])", ""),
            (r"\\([ij])math(?![A-Za-z])", r"\1"),
            (r"\\(?:vec|hat|overrightarrow) ?\{ ?\\?([A-Za-z]{1,3}) ?\}", r"\1"),
            (r"\{ ?\\(?:rm|bf|it)(?![A-Za-z]) ?([^{}]*)\}", r" \1 "),
            (r"\\underline ?\{([^{}]*)\}", r"\1"),
            (r"\\(?:[lL]arge|LARGE|[hH]uge|small|normalsize)(?![A-Za-z])|\\\Z", ""),
            (r"\\([lr])brace(?![A-Za-z])", lambda found: r"\{" if found[1] == "l" else r"\}"),
            (r"\\langle(?![A-Za-z]) ?|⟨", "("),
            (r" ?\\rangle(?![A-Za-z])|⟩", ")"),
            (r"\\colon(?![A-Za-z])|∶", ":"),
            (
                r"\\operatorname ?\{ ?c?tg ?\}|\\c?tg(?![A-Za-z])",
                lambda found: r"\cot" if "ctg" in found[0] else r"\tan",
            ),
            (r"\\log_ ?\{? ?e ?\}?(?![A-Za-z])", r"\\ln"),
            (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
            (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
            (r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}"),
            (r"\\(le|ge)(?:q|qslant)(?![A-Za-z])", r"\\\1"),
            (r"\\neq(?![A-Za-z])", r"\\ne"),
            (r"\\varnothing(?![A-Za-z])|\\\{ ?\\\}", r"\\emptyset "),
            (r"\\mu(?![A-Za-z])", "μ"),
            (r"\\(?:Omega|ohm)(?![A-Za-z])", "Ω"),
            (rf"\\(?:{_TEXT_COMMANDS})\s*\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}", r" \1 "),
        ),
    ),
    _step(
        "binomials",
        r"writes C_5^2 and ^5C_2 as \binom{5}{2}, and A_5^2 as \binom{5}{2}\cdot 2!",
        r"binom|[AC]_",
        _rewriting(
            (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
            (r"\\binom ?(\w) ?(\w)", r"\\binom{\1}{\2}"),
            (r"(?<![\w}])C_\{?(\w)\}?\^\{?(\w)\}?", r"\\binom{\1}{\2}"),
            (r"(?<![\w}])A_\{?(\d)\}?\^\{?(\d)\}?", r"\\binom{\1}{\2}\\cdot \2!"),
            (r"(?:\{\})?\^\{?(\w)\}? ?C_\{?(\w)\}?", r"\\binom{\1}{\2}"),
        ),
    ),
    _step(
        "indices",
        "removes the indices of solutions: x_1 = 2 becomes x = 2",
        r"_\{?\d\}? ?=",
        _rewriting(
            (r"(?<![A-Za-z])([a-z])_\{?\d\}?(?= ?=)", r"\1"),
        ),
    ),
    _step(
        "bases",
        "writes (101)_2 and 0b101 as 101_{2}, and digits above 9 in capitals",
        r"_|0[box]",
        _rewriting(
            (r"\( ?([0-9A-Fa-f]+) ?\)_", r"\1_"),
            (r"(?<!\w)0([box])([0-9A-Fa-f]+)(?!\w)", lambda found: f"{found[2]}_{{{_BASES[found[1]]}}}"),
            (r"_ ?\{ ?([a-z]+) ?\}", lambda found: f"_{{{words_as_digits(found[1])}}}"),
            (r"(?<!\w)([0-9A-Fa-f]+) ?(?=_\{?16)", lambda found: found[1].upper()),
        ),
    ),
    _step("layouts", "writes matrices as pmatrix, and systems of equations as lists", r"\\begin|\[ ?\[", one_layout),
    _step(
        "intervals",
        "writes `]1,2[` as `(1,2)`",
        r"\A ?\]|\[ ?\Z",
        _rewriting(
            (r"\A ?\](?=[^][()]+[][] ?\Z)", "("),
            (r"(?<=[^][()])\[ ?\Z", ")"),
        ),
    ),
    _step("repeating", r"writes repeating decimals as fractions", r"\.\d* ?[\\(.]|[\u0304\u0305]", exact_repeating),
    _step(
        "number words",
        "writes an English number at the start in digits",
        r"\A *[A-Za-z零一二三四五六七八九十百两负]",
        words_as_digits,
    ),
    _step(
        "magnitudes", "writes million, lakh, 万 ... after a number in digits", r"\d ?[A-Za-z万亿千]", without_magnitudes
    ),
    _step(
        "currencies",
        "writes the sign or code of a currency after the number",
        r"[$€£¥₹]|\\(?:pounds|euro)|[A-Z]{3} ?[-\d]|Rs",
        _after_number,
    ),
    _step(
        "delimiters",
        "removes delimiters of mathematics",
        r"[\\$%]",
        _rewriting((r"(?<!\\)\\[()\[\]]|\\?\$", ""), (r"\\%", "%")),
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
            (_BEFORE_FACTOR, r"\1(\2)"),
            (r"<=", r"\\le "),
            (r">=", r"\\ge "),
            (r"(?<=[\d)])!=", "! ="),
            (r"!=", r"\\ne "),
            (r"(?i)\b(?:(negative|minus|positive) )?infinity\b", _infinity),
            (r"(?i)\A\s*(?:the )?empty set\s*\Z", r"\\emptyset "),
            (r"(?<=\d) ?\(? ?(?:in )?base[ -](\w+) ?\)?", lambda found: f"_{{{words_as_digits(found[1])}}}"),
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
        "writes `and`, `or`, 和 and 或 between values as commas",
        " (?:and|or) |[和或]",
        _rewriting((r"\A((?:(?!\\[lg]e(?![A-Za-z]))[^<>])*)\Z", lambda found: _AND_OR.sub(", ", found[1]))),
    ),
    _step(
        "lead",
        "removes a lead such as `The answer is`, a full stop, and a leading ≈",
        r"\s|[~.!,;]|\\|[答因所故于的选共]",
        _rewriting(
            (r"\s+", " "),
            (r"\A | \Z", ""),
            (r"(?i)\A(?:(?:so|thus|hence|therefore|we (?:get|have|obtain)),? )?", ""),
            (r"(?i)\A(?:the )?(?:final |correct )?(?:answer|result|solution)(?: is\b| are\b|:| =|,)[: ]*", ""),
            (r"(?i)\A(?:the|this) (?:[a-z]+ ){1,4}(?:is|are|equals)(?: at| equal to)? (?=\S)", ""),
            (r"(?i)\A(?:in )?(?:the )?(?:year )?(?=\d{4}\Z)", ""),
            (r"\A(?:因此|所以|故|于是)?[,:]? ?(?:(?:最终)?答案?[是为]?[:]? ?(?![^\d\W]*[对错]))?", ""),
            (r"(?i)\A[a-z]{3,}: (?=-?[\d\\(])|\Athere (?:are|is) (?:exactly |only )?(?=\d)", ""),
            (r"(?<=\d) such (?=[a-z])", " "),
            (r"(?i)\Athe [a-z]+ (?=does not exist\Z)", ""),
            (r"\A(?:选项?|故选) ?:? ?(?=[A-J])|\A共 ?(?=\d)", ""),
            (r"(?<=[A-Za-z]) ?的值[是为] ?", "="),
            (r"(?<![a-z]\.[a-z])\.\Z|(?<=[A-Za-z]{3})!\Z|[,;] ?\Z", ""),
            (r"\A(?:\\approx|~) ?| \Z", ""),
        ),
    ),
    _step(
        "remark",
        "removes the parentheses of words, and of the same number, after a number",
        r"\)",
        _rewriting(
            (r"\A(-?\d+(?:\.\d+)?) ?\(\1\)\Z", r"\1"), (r"(?<=\d) ?\(([A-Za-z]{2,}(?: [A-Za-z]+)*)\)\Z", r" \1")
        ),
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
