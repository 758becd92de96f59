"""Canonical names of units after an answer's number. No unit is converted: 1 m and 100 cm are two answers."""

import re
from collections.abc import Iterator
from functools import lru_cache

# Names of units that take prefixes, by symbol. The case of a symbol counts: mW is not MW.
_SI = {
    "m": "meter metre", "g": "gram gramme", "s": "second sec", "A": "ampere amp", "K": "kelvin", "mol": "mole",
    "cd": "candela", "Hz": "hertz", "N": "newton", "Pa": "pascal", "J": "joule", "W": "watt", "C": "coulomb",
    "V": "volt", "F": "farad", "Ω": "ohm", "S": "siemens", "Wb": "weber", "T": "tesla", "H": "henry", "lm": "lumen",
    "lx": "lux", "Bq": "becquerel", "Gy": "gray", "Sv": "sievert", "kat": "katal", "eV": "electronvolt",
    "L": "liter litre", "bar": "", "cal": "calorie", "Wh": "watthour", "B": "byte", "bit": "", "t": "tonne ton",
    "pc": "parsec", "dyn": "dyne", "rad": "radian", "M": "molar", "Ah": "", "bps": "", "sr": "steradian", "VA": "",
    "var": "", "erg": "", "Ci": "curie", "G": "gauss", "Oe": "oersted", "P": "poise", "St": "stokes", "rem": "",
    "Eq": "equivalent", "IU": "", "b": "barn",
}  # fmt: skip
_PREFIXES = {
    "Y": "yotta", "Z": "zetta", "E": "exa", "P": "peta", "T": "tera",
    "G": "giga", "M": "mega", "k": "kilo", "h": "hecto", "da": "deca", "d": "deci",
    "c": "centi", "m": "milli", "μ": "micro", "n": "nano", "p": "pico", "f": "femto",
    "a": "atto", "z": "zepto", "y": "yocto",
}  # fmt: skip
_BINARY = {"Ki": "kibi", "Mi": "mebi", "Gi": "gibi", "Ti": "tebi", "Pi": "pebi"}  # prefixes of bytes and bits
_NAMES = {
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard yards yds",
    "mi": "mile miles",
    "lb": "lbs pound pounds",
    "oz": "ounce ounces",
    "ms": "msec",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "days",
    "week": "weeks wk wks",
    "month": "months",
    "year": "years yr yrs",
    "ly": "lightyear lightyears",
    "AU": "au",
    "Å": "angstrom angstroms Ångström ångström",
    "kg": "kgs kilo kilos",
    "g": "gm gms",
    "G": "Gs",
    "cm": "cms",
    "km": "kms",
    "mL": "ml cc",
    "L": "l",
    "gal": "gallon gallons",
    "pt": "pint pints",
    "qt": "quart quarts",
    "cup": "cups",
    "ha": "hectare hectares",
    "acre": "acres",
    "degree": "degrees deg",
    "rev": "revolution revolutions",
    "degree C": "celsius",
    "degree F": "fahrenheit",
    "atm": "atmosphere atmospheres",
    "mmHg": "torr Torr",
    "psi": "",
    "ksi": "",
    "lbf": "",
    "kgf": "kp kilopond kiloponds",
    "kip": "kips",
    "N m": "Nm",
    "kN m": "kNm",
    "tsp": "teaspoon teaspoons",
    "tbsp": "tablespoon tablespoons",
    "bbl": "barrel barrels",
    "mil": "mils",
    "rod": "rods",
    "BTU": "Btu btu",
    "dB": "decibel decibels",
    "dBm": "",
    "dBA": "",
    "CFU": "cfu",
    "kDa": "kilodalton kilodaltons",
    "bp": "",
    "kbp": "",
    "Mx": "maxwell maxwells",
    "ft^3/s": "cfs",
    "px": "pixel pixels",
    "hp": "horsepower",
    "u": "amu Da dalton daltons",
    "KB": "kB",
    "dollar": "dollars usd USD 美元",
    "cent": "cents ¢",
    "euro": "euros eur EUR € \\euro 欧元",
    "pound sterling": r"£ \pounds gbp GBP 英镑",
    "yuan": "RMB rmb CNY ¥ 元 块钱 人民币",
    "yen": "JPY 日元",
    "rupee": "rupees Rs INR ₹",
    "km/h": "kmh kph kmph",
    "mi/h": "mph",
    "rev/min": "rpm",
    "rev/s": "rps",
    "gal/min": "gpm",
    "bpm": "",
    "fps": "",
    "ppm": "",
    "ppb": "",
    "ppt": "",
    "dpi": "",
    "mpg": "",
    "kn": "knot knots",
    "%": "percent percentage pct",
    "": "unit units 单位",  # carries no information
}
# Names in Chinese. Any other word after a number is a counted thing: a unit of its own.
_CHINESE = {
    "mm": "毫米", "cm": "厘米", "dm": "分米", "m": "米", "km": "千米 公里", "mg": "毫克", "g": "克",
    "kg": "千克 公斤", "t": "吨", "mL": "毫升", "L": "升", "s": "秒 秒钟", "min": "分钟", "h": "小时 个小时 时",
    "day": "天 日", "week": "周 星期", "month": "个月 月", "year": "年 岁", "degree": "度", "ha": "公顷",
    "N": "牛顿", "J": "焦耳", "W": "瓦特 瓦", "V": "伏特 伏", "A": "安培 安", "Ω": "欧姆 欧", "Pa": "帕斯卡 帕",
    "Hz": "赫兹", "K": "开尔文", "degree C": "摄氏度", "m^2": "平方米", "cm^2": "平方厘米", "dm^2": "平方分米",
    "km^2": "平方千米 平方公里", "m^3": "立方米", "cm^3": "立方厘米", "dm^3": "立方分米",
    "km/h": "千米/时 千米/小时 公里/小时", "m/s": "米/秒", "jiao": "角", "fen": "分",
}  # fmt: skip
# Names of more than one word, or with figures.
_PHRASES = {
    "fl oz": ["fl. oz", "fl. oz.", "fl oz.", "fluid ounce", "fluid ounces"],
    "nmi": ["nautical mile", "nautical miles"],
    "kgf": ["kilogram force", "kilograms force"],
    "lbf": ["pound force", "pounds force"],
    "rev/min": ["r/min"],
    "rev/s": ["r/s"],
    "MeV/c": [],
    "GeV/c": [],
    "MeV/c^2": [],
    "GeV/c^2": [],
    "L/100 km": ["l/100 km", "L/100km", "l/100km", "liters per 100 kilometers", "litres per 100 kilometres"],
}
# Products and quotients that have a name of their own.
_SAME = {"h kW": "kWh", "W h": "Wh", "h mA": "mAh", "A h": "Ah", "A V": "VA", "lb/in^2": "psi"}
CONFUSABLE = frozenset(
    {frozenset({"C", "degree C"}), frozenset({"F", "degree F"}), frozenset({"K", "degree K"})}
    | {frozenset({"lb", "pound sterling"})}
)
_FACTOR = re.compile(
    r"(?P<power>(?:square|cubic)\b|sq|cu)?(?P<gap>\.? ?)"
    r"(?P<base>[%'\"]|degree [CFK]|[^\W\d_]+|[€£¥₹¢]|\\(?:pounds|euro))"
    r"(?: ?\^ ?\{? ?(?P<exponent>-?\d) ?\}?| (?P<after>squared|cubed))?\.?"
)
_HYPHEN = re.compile(r"(?<=[a-z])-(?=[a-z])")
_TEMPERATURE = re.compile(r"degrees? (C|F|K|celsius|fahrenheit|kelvin)\b", re.IGNORECASE)
_QUOTIENT = re.compile(r"\\frac ?\{ ?((?:[^{}]|\{[^{}]*\})*?) ?\} ?\{ ?((?:[^{}]|\{[^{}]*\})*?) ?\}")
_SLASH = re.compile(r" ?/ ?")
_NO_BRACES = str.maketrans("", "", "{}")
_BETWEEN = re.compile(r" ?(?:\\cdot ?|\\times ?|[·*]) ?")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_MARKS = {"'": "arcminute", '"': "arcsecond"}
_NO_THINGS = frozenset({"and", "not", "mod", "then", "else", "maybe"})  # words that are not counted things
_LETTERS_OF_A_THING = 4  # at least: three letters can be factors, as in 3 xyz
# Symbols that can be variables or words: read as units only where the caller knows that they are.
_DOUBTFUL = frozenset(
    ["t", "d", "M", "S", "B", "G", "P", "b", "am", "as", "at", "ag", "zm", "zs", "zg", "zt", "ym", "ys", "yg", "yt"]
    + [f"{prefix}b" for prefix in "PhdcnpfazyY"]  # pb, a product, and Pb, lead
)


def _all_names() -> Iterator[tuple[str, str]]:
    for symbol, names in _SI.items():
        for prefix, word in (("", ""), *_PREFIXES.items()):
            yield prefix + symbol, prefix + symbol
            for name in names.split():
                yield word + name, prefix + symbol
                yield f"{word}{name}s", prefix + symbol
    for table in (_NAMES, _CHINESE):
        for name, aliases in table.items():
            yield name, name
            yield from ((alias, name) for alias in aliases.split())
    for prefix, word in _BINARY.items():
        for symbol, name in (("B", "byte"), ("bit", "bit")):
            yield from ((alias, prefix + symbol) for alias in (prefix + symbol, word + name, f"{word}{name}s"))


_CANONICAL = dict(_all_names()) | {"d": "day"}
_WITHOUT_CASE = {alias.lower(): name for alias, name in _CANONICAL.items() if len(alias) > 3}  # names, not symbols


@lru_cache(maxsize=4096)
def canonical_unit(text: str, *, attached: bool = False, doubtful: bool = False) -> str | None:
    """Return the canonical name of a unit, or None if the text is not a unit.

    `square centimetres` and `cm^2` are both `cm^2`; `m s^{-1}` and `m/s` are both `m/s`. A counted thing is a unit of
    its own name (`apples`: `apple`); the name of `units` is empty. `attached`: there is no space after the number. `5m`
    can be a product but `5apples` a typo, so attached names need at least two letters. `doubtful`: also read symbols
    that are as often variables, such as the t of tonnes.
    """
    text = _HYPHEN.sub(" ", text.replace("per cent", "percent"))
    text = _TEMPERATURE.sub(lambda found: f"degree {found[1][0].upper()}", _QUOTIENT.sub(r"\1/(\2)", text))
    if (plain := _SLASH.sub("/", text).translate(_NO_BRACES)) in _WHOLE:
        return _WHOLE[plain]
    whole = _factor(text, attached, doubtful)
    factors: dict[str, int] = {}
    for factor in [whole] if whole else _factors(text, attached, doubtful):
        if factor is None:
            return None
        name, exponent = factor
        factors[name] = factors.get(name, 0) + exponent
    above = [_power(name, exponent) for name, exponent in factors.items() if exponent > 0]
    below = [_power(name, -exponent) for name, exponent in factors.items() if exponent < 0]
    unit = "/".join([" ".join(sorted(above)), *sorted(below)])
    return _SAME.get(unit, unit)


_WHOLE = {alias: name for name, aliases in _CHINESE.items() for alias in aliases.split()} | {
    alias: name for name, aliases in _PHRASES.items() for alias in [name, *aliases]
}


def _power(name: str, exponent: int) -> str:
    return name if exponent == 1 else f"{name}^{exponent}"


def _factors(text: str, attached: bool, doubtful: bool) -> Iterator[tuple[str, int] | None]:
    """Yield the factors of a unit with their exponents."""
    above, *below = re.split(r" ?/ ?| ?\bper\b ?", text)
    for sign, part in ((1, above), *((-1, part) for part in below)):
        pieces = _BETWEEN.split(part.strip(" ()"))
        if pieces == ["1"]:  # 1/s
            continue
        if len(pieces) == 1 and _factor(pieces[0], attached, doubtful) is None:
            pieces = [piece for piece in re.split(r" +(?!squared|cubed)", pieces[0]) if piece]
            if any(_known(piece) is None for piece in pieces):
                yield None
                return
        for piece in pieces:
            factor = _factor(piece.strip(), attached and len(pieces) == 1, doubtful)
            yield None if factor is None else (factor[0], sign * factor[1])


def _known(piece: str) -> str | None:
    match = _FACTOR.fullmatch(piece)
    return None if match is None else _name(match["base"])


def _name(base: str) -> str | None:
    return _CANONICAL.get(base, _WITHOUT_CASE.get(base.lower()))


def _factor(text: str, attached: bool, doubtful: bool) -> tuple[str, int] | None:
    """Return the canonical name of one factor and its exponent, or None."""
    match = _FACTOR.fullmatch(text)
    if match is None:
        return None
    power, base = match["power"] or "", match["base"]
    if power and not match["gap"] and (_name(power + base) or not _name(base)):  # cups, customers; but sqft
        power, base = "", power + base
    if base in _MARKS:
        return (_MARKS[base], 1) if attached else None
    if (base in _DOUBTFUL and (attached or not doubtful)) or (
        attached and len(base) == 1 and base.isascii() and base != "%"
    ):
        return None
    name = base if base.startswith("degree ") else _name(base)
    if name is None:
        long_enough = len(base) >= (_LETTERS_OF_A_THING if base.isascii() else 1)
        is_thing = (not attached or not base.isascii()) and long_enough and base.lower() not in _NO_THINGS
        name = base.lower().removesuffix("s") if is_thing else None
    exponent = int(match["exponent"] or _POWERS.get(power or match["after"] or "", 1))
    return None if name is None else (name, exponent if name else 1)
