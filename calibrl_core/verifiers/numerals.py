"""Numbers in other writings than digits: repeating decimals, English words, and magnitudes such as million."""

import re
from fractions import Fraction

_DOTS = r"(?:\.{2,}|…|\\[lc]?dots(?![A-Za-z]))"
_MARKED = re.compile(
    r"(?<![\d.])(?P<whole>\d{0,20})\.(?P<fixed>\d{0,20}) ?"
    r"(?:\\(?:overline|bar) ?\{ ?(?P<bar>\d{1,20}) ?\}"
    r"|\\dot ?\{?(?P<first>\d)\}?(?:(?P<middle>\d{0,20})\\dot ?\{?(?P<last>\d)\}?)?"
    rf"|\((?P<parentheses>\d{{1,20}})\)|(?P<lined>(?:\d[\u0304\u0305])+)){_DOTS}?"
)
_ENDLESS = re.compile(rf"(?<![\d.])(?P<whole>\d{{0,20}})\.(?P<digits>\d{{3,40}}) ?{_DOTS}")

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SMALL = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10,
}  # fmt: skip
_WORD = "|".join([*_SMALL, "hundred", *_SCALES])
_IN_WORDS = re.compile(
    rf"\A\s*(?P<sign>(?:minus|negative) )?(?P<number>(?:{_WORD})(?:(?:-| and | )(?:{_WORD}))*)"
    rf"(?:(?P<more> and)?[ -](?P<part>an?[ -])?(?P<under>{'|'.join(_PARTS)})s?)?(?![\w-])",
    re.IGNORECASE,
)
_DIGIT = "|".join(_ONES[:10])
_DECIMAL = re.compile(rf"(?i)\A\s*({_WORD}) point ((?:{_DIGIT})(?: (?:{_DIGIT}))*)\s*\Z")
_CHINESE_DIGITS = "零一二三四五六七八九"
_CHINESE_SCALES = {"十": 10, "百": 100}
_IN_CHINESE = rf"[{_CHINESE_DIGITS}两]?(?:百零?[{_CHINESE_DIGITS}]?)?(?:十[{_CHINESE_DIGITS}]?)?"
_CHINESE_PARTS = re.compile(rf"\A(?=\S)({_IN_CHINESE})分之(?=\S)({_IN_CHINESE})\Z")
# Only before the end or a measure word: a sentence can begin with a digit, too.
_CHINESE = re.compile(
    rf"\A(负)?(?=[{_CHINESE_DIGITS}两十])({_IN_CHINESE})(?=\Z|[个小天日年月周元米厘千公斤度岁人次种])"
)
_MAGNITUDES = _SCALES | {"hundred": 2, "lakh": 5, "lakhs": 5, "crore": 7, "crores": 7, "万": 4, "亿": 8}
_MAGNIFIED = re.compile(
    rf"(?<![\d.,])(?P<number>\d+(?:,\d{{3}})*(?:\.\d{{1,12}})?) ?(?P<scale>{'|'.join(_MAGNITUDES)})(?![A-Za-z])",
    re.IGNORECASE,
)

_CHINESE_PLACES = {"亿": 8, "万": 4, "千": 3, "百": 2, "十": 1}
_CHINESE_PART = re.compile(r"(\d+)([亿万千百十])")
# Two places or more, each smaller than the one before. 1万2 is 12000 or 10002, and 3万5千克 a mass.
_CHINESE_SUM = re.compile(
    r"(?<![\d.,])(?=\d+[亿万千百]\d)(?:\d{1,4}亿)?(?:\d{1,4}万)?(?:\d千)?(?:\d百)?(?:\d十)?(?<!\d)(?![\d亿万千百十克米瓦])"
)


def exact_repeating(text: str) -> str:
    """Return the text with repeating decimals as fractions: `0.1\\overline{6}`, `0.1\\dot{6}`, `0.1(6)`, `0.166...`."""
    return _ENDLESS.sub(_of_digits, _MARKED.sub(_of_marks, text))


def _of_marks(found: re.Match[str]) -> str:
    parts = found.groupdict(default="")
    block = parts["bar"] or parts["parentheses"] or re.sub(r"\D", "", parts["lined"])
    return _fraction(parts["whole"], parts["fixed"], block or parts["first"] + parts["middle"] + parts["last"])


def _of_digits(found: re.Match[str]) -> str:
    """Return the fraction of a decimal with dots if its last digits are repeated: one digit three times, several
    twice. Otherwise the decimal with its dots, whose further digits are unknown.
    """
    digits = found["digits"]
    for length in range(1, len(digits) // 2 + 1):
        block, times = digits[-length:], 3 if length == 1 else 2
        if digits.endswith(block * times):
            return _fraction(found["whole"], digits[:-length], block)
    return found[0]


def _fraction(whole: str, fixed: str, block: str) -> str:
    known, scale = int((whole + fixed) or "0"), 10 ** len(fixed)
    value = Fraction(known, scale) + Fraction(int(block), scale * (10 ** len(block) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}" if value.denominator > 1 else str(value)


def words_as_digits(text: str) -> str:
    """Return the text with a number in words at its start as digits: `twenty-one apples`, `two thirds`, 三分之一. Also
    decimals such as `one point five`, and both numbers of `one to two`.
    """
    first, to, second = text.partition(" to ")
    if to and _IN_WORDS.fullmatch(first) and _IN_WORDS.fullmatch(second):
        return f"{words_as_digits(first)} to {words_as_digits(second)}"
    text = _DECIMAL.sub(_as_decimal, text)
    return _CHINESE_PARTS.sub(_of_chinese_parts, _CHINESE.sub(_of_chinese, _IN_WORDS.sub(_as_digits, text)))


def _of_chinese_parts(found: re.Match[str]) -> str:
    under = _chinese(found[1])
    return f"{_chinese(found[2])}%" if under == 100 else rf"\frac{{{_chinese(found[2])}}}{{{under}}}"


def _of_chinese(found: re.Match[str]) -> str:
    return f"{'-' if found[1] else ''}{_chinese(found[2])}"


def _chinese(text: str) -> int:
    """Return the number of up to three Chinese digits with 十 and 百."""
    total = digit = 0
    for sign in text:
        if sign in _CHINESE_SCALES:
            total, digit = total + (digit or 1) * _CHINESE_SCALES[sign], 0
        else:
            digit = _CHINESE_DIGITS.index(sign) if sign != "两" else 2
    return total + digit


def _as_digits(found: re.Match[str]) -> str:
    words = re.split(r"-| and | ", found["number"].lower())
    value, sign = _value(words), "-" if found["sign"] else ""
    if value is None or (bool(found["more"]) != bool(found["part"])):
        return found[0]
    if not found["under"]:
        return f"{sign}{value}"
    under = _PARTS[found["under"].lower()]
    over = value * under + 1 if found["more"] else value
    return rf"{sign}\frac{{{over}}}{{{under}}}"


def _as_decimal(found: re.Match[str]) -> str:
    digits = "".join(str(_SMALL[word]) for word in found[2].lower().split())
    whole = _value([found[1].lower()])
    return found[0] if whole is None else f"{whole}.{digits}"


def _value(words: list[str]) -> int | None:
    """Return the number of English words, or None if they are several numbers: `one two`."""
    total = group = 0
    highest = 15  # power of ten of the last scale: each must be smaller than the one before
    room = 1000  # a word must be smaller than what its place leaves free: 100 after hundred, 10 after twenty
    for word in words:
        if word in _SCALES:
            if not group or _SCALES[word] >= highest:
                return None
            total, group, highest, room = total + group * 10 ** _SCALES[word], 0, _SCALES[word], 1000
        elif word == "hundred":
            if not 0 < group < 100 or group % 10 == 0:
                return None
            group, room = group * 100, 100
        elif _SMALL[word] >= room or (_SMALL[word] == 0 and len(words) > 1):
            return None
        else:
            group, room = group + _SMALL[word], 10 if _SMALL[word] >= 20 else 0
    return total + group


def without_magnitudes(text: str) -> str:
    """Return the text with magnitudes after a number as digits: `1.2 million`, `5 lakh`, `3万`, `1万2千`."""
    text = _CHINESE_SUM.sub(lambda found: str(_chinese_sum(found[0])), text)
    return _MAGNIFIED.sub(_multiplied, text)


def _chinese_sum(text: str) -> int:
    return sum(int(digits) * 10 ** _CHINESE_PLACES[place] for digits, place in _CHINESE_PART.findall(text))


def _multiplied(found: re.Match[str]) -> str:
    value = Fraction(found["number"].replace(",", "")) * 10 ** _MAGNITUDES[found["scale"].lower()]
    return f"{value} " if value.denominator == 1 else found[0]
