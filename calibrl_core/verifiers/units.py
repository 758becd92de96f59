"""Canonical names of units after an answer's number. No unit is converted: 1 m and 100 cm are two answers."""

import re

_NAMES = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres cms",
    "dm": "decimeter decimeters decimetre decimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres kms",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard yards yds",
    "mi": "mile miles",
    "mg": "milligram milligrams",
    "g": "gram grams gm",
    "kg": "kilogram kilograms kgs",
    "lb": "lbs pound pounds",
    "oz": "ounce ounces",
    "ms": "millisecond milliseconds",
    "s": "sec secs second seconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years yr yrs",
    "mL": "ml milliliter milliliters millilitre millilitres",
    "L": "l liter liters litre litres",
    "gal": "gallon gallons",
    "degree": "degrees deg",
    "rad": "radian radians",
    "degree C": "C celsius",
    "degree F": "F fahrenheit",
    "K": "kelvin",
    "N": "newton newtons",
    "J": "joule joules",
    "kJ": "kilojoule kilojoules",
    "W": "watt watts",
    "kW": "kilowatt kilowatts",
    "V": "volt volts",
    "A": "amp amps ampere amperes",
    "Hz": "hertz",
    "Pa": "pascal pascals",
    "kPa": "kilopascal kilopascals",
    "mol": "mole moles",
    "dollar": "dollars usd",
    "cent": "cents",
    "euro": "euros eur €",
    "pound sterling": "£ gbp",
    "km/h": "kmh kph kmph",
    "mi/h": "mph",
    "%": "percent percentage pct",
    "": "unit units",  # carries no information
}
_CANONICAL = {alias: name for name, aliases in _NAMES.items() for alias in (name, *aliases.split())}
_FACTOR = re.compile(r"(?P<power>square|sq|cubic|cu)?\.? ?(?P<base>%|[A-Za-z€£]+)(?: ?\^ ?\{?(?P<exponent>\d)\}?)?\.?")
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_NO_THINGS = frozenset({"and", "not", "mod", "then", "else", "maybe"})  # words that are not counted things
_LETTERS_OF_A_THING = 4  # at least: three letters can be factors, as in 3 xyz


def canonical_unit(text: str, *, attached: bool = False) -> str | None:
    """Return the canonical name of a unit, or None if the text is not a unit.

    `square centimetres` and `cm^2` are both `cm^2`. A counted thing is a unit of its own name (`apples`: `apple`); the
    name of `units` is empty. `attached`: there is no space after the number. `5m` can be a product but `5apples` a
    typo, so attached names need at least two letters.
    """
    factors = [_factor(part.strip(), attached) for part in re.split(r"/|\bper\b", text)]
    known = [factor for factor in factors if factor is not None]
    if len(known) < len(factors):
        return None
    return "/".join(known)


def _factor(text: str, attached: bool) -> str | None:
    if text in ("degree C", "degree F"):
        return text
    match = _FACTOR.fullmatch(text)
    if match is None:
        return None
    base = match["base"]
    name = _CANONICAL.get(base, _CANONICAL.get(base.lower()) if len(base) > 1 else None)
    if attached and len(base) == 1 and base not in "%€£":
        return None
    if name is None:
        is_thing = not attached and len(base) >= _LETTERS_OF_A_THING and base.lower() not in _NO_THINGS
        name = base.lower().removesuffix("s") if is_thing else None
    exponent = match["exponent"] or _POWERS.get(match["power"] or "", "1")
    return f"{name}^{exponent}" if name and exponent != "1" else name
