"""A sampled group as HTML: coloured tokens of each completion beside the expert.

All text comes from a model or a dataset, so all text is escaped: it is never HTML, Markdown or LaTeX.
"""

import base64
import io
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from calibrl.schemas import find_algorithm
from dashboard.markup import chip, escape
from dashboard.palette import CORRECT, ENTROPY, EXPERT, NEUTRAL, POLICY, RARENESS, VALIDATION, WRONG, faded

DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # controls of the text direction
WINDOW = 1000  # coloured tokens of a completion at a time; the others are folded
LAST = f"last {WINDOW:,}"  # window of a completion's end, where its answer is
SMALL = 160  # pixels; smaller images are enlarged without blur
LARGE = 1024  # pixels; larger images are scaled down
KINDS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "Correct": lambda completion: bool(completion["passed"]),
    "Wrong": lambda completion: not completion["passed"],
    "Truncated": lambda completion: bool(completion["truncated"]),
}
ORDERS = {"As sampled": None, "Highest reward": "reward", "Highest advantage": "advantage"}  # with the field
TOKEN_STYLE = """<style>
.tokens label:has(:focus-visible){outline:2px solid;outline-offset:1px}
.tokens input{position:absolute;opacity:0;width:1px;height:1px;margin:0;pointer-events:none}
.tokens label:has(:checked)::after{content:attr(title);margin:0 .3rem;padding:0 .4rem;border:1px solid;
  border-radius:.3rem;font-weight:600;font-size:.75rem}
</style>"""
BOX = (
    "white-space:pre-wrap;overflow-wrap:anywhere;font-family:var(--st-code-font,monospace);font-size:0.85rem;"
    "line-height:1.65"
)


@dataclass(frozen=True)
class Tint:
    """A way to colour tokens by one number per token."""

    label: str
    field: str  # of `SampleCompletion`: one number per token
    unit: str
    full: float  # distance from `middle` with the strongest colour
    above: str  # colour of values above 0
    below: str  # colour of values below 0
    hint: str
    scale: tuple[tuple[float, str], ...]  # values of the legend with their labels
    middle: float = 0.0  # the value without colour


TINTS = {  # by label, which is also in the URL
    tint.label: tint
    for tint in (
        Tint(
            "Gap to the expert",
            "gaps",
            "nats",
            6.0,
            POLICY,
            EXPERT,
            "Blue: log π(token) > log π(expert's token at this position). Pink: less.",
            ((-6, "−6 nats or less"), (-3, "−3"), (0, "0"), (3, "+3"), (6, "+6 nats or more")),
        ),
        Tint(
            "Entropy",
            "entropies",
            "nats",
            2.0,
            ENTROPY,
            ENTROPY,
            "Stronger colour: higher entropy at this token.",
            ((0, "0 nats"), (1, "1"), (2, "2 nats or more")),
        ),
        Tint(
            "Log-probability",
            "logprobs",
            "nats",
            4.0,
            NEUTRAL,
            NEUTRAL,
            "Stronger colour: less likely token.",
            ((0, "0 nats"), (-2, "−2"), (-4, "−4 nats or less")),
        ),
        Tint(
            "Ratio",
            "ratios",
            "π_new / π_old",
            0.2,
            CORRECT,
            EXPERT,
            "π_new / π_old when the update used the token. Green: more likely than at sampling. Pink: less likely.",
            ((0.8, "0.8 or less"), (0.9, "0.9"), (1, "1"), (1.1, "1.1"), (1.2, "1.2 or more")),
            middle=1.0,
        ),
        Tint(
            "Clipping",
            "clipping",
            "(1: clipped high, −1: clipped low)",
            1.0,
            RARENESS,
            EXPERT,
            "The clip stopped the gradient of a coloured token. Yellow: ratio too high. Pink: ratio too low.",
            ((-1, "clipped (low)"), (0, "not clipped"), (1, "clipped (high)")),
        ),
        *(
            Tint(
                f"{name} image",
                f"image_{change}",
                "nats",
                2.0,
                VALIDATION,
                WRONG,
                f"Purple: log π(token) is higher with its own image than {changed}. Orange: lower.",
                ((-2, "−2 nats or less"), (0, "0"), (1, "+1"), (2, "+2 nats or more")),
            )
            for name, change, changed in (
                ("Blank", "blank", "with a grey one"),
                ("Shuffled", "shuffle", "with its tiles in another order"),
                ("Swapped", "swap", "with that of another prompt"),
            )
        ),
    )
}


def clipping(completion: dict[str, Any], settings: Mapping[str, Any]) -> list[float | None]:
    """Return per token: 1 clipped high, -1 clipped low, 0 not clipped, None without a ratio.

    `settings`: the job's algorithm. An algorithm that `clips_sequences` clips whole completions, by the geometric mean
    of their ratios.
    """
    advantage = _value(completion["advantage"]) or 0.0
    ratios = [_value(ratio) for ratio in completion.get("ratios") or [None] * len(completion["tokens"])]
    algorithm = find_algorithm(settings["type"])
    if algorithm is not None and algorithm.clips_sequences:
        positive = [ratio for ratio in ratios if ratio]
        if len(positive) < len(ratios) or _left_out(completion) or not positive:
            return [None] * len(ratios)
        ratios = [math.exp(math.fsum(map(math.log, positive)) / len(positive))] * len(ratios)
    return [None if ratio is None else _clip(ratio, advantage, settings) for ratio in ratios]


def _clip(ratio: float, advantage: float, settings: Mapping[str, Any]) -> float:
    if advantage > 0:
        return float(ratio > 1 + settings["clip_high"])
    if advantage < 0:
        return float(ratio > settings["dual_clip"]) - float(ratio < 1 - settings["clip_low"])
    return 0.0


def _value(value: Any) -> float | None:
    """A number of a group's JSON, in which non-finite numbers are strings; None if there is none."""
    return None if value is None else float(value)


def _colour(value: float, tint: Tint) -> str:
    away = value - tint.middle
    strength = 1.0 if not math.isfinite(value) else min(abs(away) / tint.full, 1.0)
    return faded(tint.above if away >= 0 else tint.below, 0.65 * strength)


def legend(tint: Tint) -> str:
    """Return the legend of a tint, with the style sheet of the tokens below it."""
    swatch = '<span style="{};padding:0 .45rem;border-radius:.2rem">{}</span>'
    swatches = [swatch.format(f"background:{_colour(value, tint)}", text) for value, text in tint.scale]
    return (
        f'{TOKEN_STYLE}<div style="display:flex;flex-wrap:wrap;gap:.25rem .4rem;font-size:.8rem">'
        f"<span>{escape(tint.label)}:</span>{''.join(swatches)}{swatch.format('opacity:0.75', 'grey: n/a')}</div>"
    )


def _token(text: str, value: float | None, tint: Tint, name: str, expert: str | None) -> str:
    if value is None:
        title, style = f"no {tint.label.lower()} here", "opacity:0.75"
    else:
        title, style = (
            f"{tint.label} {value:+.3f} {tint.unit}",
            f"background:{_colour(value, tint)};border-radius:0.2rem",
        )
    if expert is not None:
        title += f"; expert's token {expert!r}"
    blank = "" if text.strip() else f' aria-label="blank, {escape(title)}"'
    button = f'<input type="radio" name="{name}"{blank}>'
    return f'<label title="{escape(title)}" style="{style}">{button}{shown(text)}</label>'


def windows(group: Mapping[str, Any]) -> list[str]:
    """Return the windows of tokens in which the longest completion of a group is coloured: the last one first."""
    longest = max((len(completion["tokens"]) for completion in group["completions"]), default=0)
    if longest <= WINDOW:
        return [LAST]
    return [LAST, *(f"{begin + 1:,} to {begin + WINDOW:,}" for begin in range(0, longest, WINDOW))]


def _window(count: int, name: str) -> tuple[int, int]:
    """The first coloured token of `count` and the one behind the last. A short completion has no later windows."""
    begin = count - WINDOW if name == LAST else int(name.partition(" ")[0].replace(",", "")) - 1
    begin = min(begin, count - WINDOW)
    return max(begin, 0), max(begin, 0) + WINDOW


def coloured(
    completion: dict[str, Any], tint: Tint, number: int, window: str = LAST, experts: Sequence[str] = ()
) -> str:
    """Return the tokens of completion `number`. Each shows its value on hover, and beside it if it is selected.
    `experts`: the expert's tokens, of which each token names the one at its position.

    They are styled radio buttons, so that no script is needed: a tap selects one, arrow keys move between them, and all
    of them are a single tab stop. Tokens outside the window are folded.
    """
    tokens: Sequence[str] = completion["tokens"]
    values = completion.get(tint.field) or [None] * len(tokens)  # samples of older versions have no ratios
    name = f"token-{number}"
    begin, end = _window(len(tokens), window)
    left_out, gap = _left_out(completion), (len(tokens) + 1) // 2
    spans = [
        _token(token, _value(value), tint, name, _at(experts, place + (left_out if place >= gap else 0)))
        for place, (token, value) in enumerate(zip(tokens[begin:end], values[begin:end], strict=False), begin)
    ]
    before, behind = [shown(token) for token in tokens[:begin]], [shown(token) for token in tokens[end:]]
    if left_out:
        at, part = _part_of(gap, begin, end, before, spans, behind)
        part.insert(at, f"<b> [... {left_out:,} tokens omitted ...] </b>")
    role = f'role="radiogroup" aria-label="Tokens of completion {number + 1}"'
    return (
        f'{_folded(before, 1)}<div class="tokens" {role} style="{BOX}">{"".join(spans)}</div>{_folded(behind, end + 1)}'
    )


def _at(tokens: Sequence[str], place: int) -> str | None:
    return tokens[place] if place < len(tokens) else None


def _part_of(place: int, begin: int, end: int, *parts: list[str]) -> tuple[int, list[str]]:
    """The part (before, in or behind the window) that has a place of the tokens, and the place in it."""
    before, inside, behind = parts
    if place < begin:
        return place, before
    return (place - begin, inside) if place <= end else (place - end, behind)


def _folded(tokens: Sequence[str], first: int) -> str:
    """The escaped tokens outside the window, folded; `first`: number of the first one among the stored tokens."""
    if not tokens:
        return ""
    stored = sum(not token.startswith("<b>") for token in tokens)
    return (
        f'<details style="font-size:.85rem"><summary>Tokens {first:,} to {first + stored - 1:,}, without colours'
        f'</summary><div style="{BOX};opacity:.75">{"".join(tokens)}</div></details>'
    )


def _left_out(completion: dict[str, Any]) -> int:
    """Number of tokens that are not stored; samples of older versions do not have it."""
    return int(completion.get("left_out", 0))


def shown(text: str) -> str:
    """Return text of a model or dataset as HTML. Controls of its direction, which would turn the text after them round,
    are named."""
    return DIRECTION.sub(
        lambda control: f'<b title="control of the text direction">[U+{ord(control[0]):04X}]</b>', escape(text)
    )


def plain_box(text: str) -> str:
    """Return text of a model or dataset, unchanged."""
    return f'<div style="{BOX}">{shown(text)}</div>'


def _number(value: Any, value_format: str) -> str:
    """A number of a group's JSON with a true minus sign; NaN and infinities by name."""
    number = float(value)
    if math.isnan(number):
        return "NaN"
    return format(number, value_format).replace("-", "−") if math.isfinite(number) else f"{'−' * (number < 0)}infinite"


def _facts(completion: dict[str, Any]) -> str:
    passed = bool(completion["passed"])
    chips = [chip("✓ correct" if passed else "✕ wrong", CORRECT if passed else WRONG)]
    chips.append(chip(f"advantage {_number(completion['advantage'], '+.2f')}", RARENESS))
    chips.append(chip(f"reward {_number(completion['reward'], '.2f')}", POLICY))
    chips += [chip(f"{name} {_number(value, 'g')}", NEUTRAL) for name, value in completion["rewards"].items()]
    chips.append(chip(f"{len(completion['tokens']) + _left_out(completion)} tokens", NEUTRAL))
    if completion["truncated"]:
        chips.append(chip("truncated", WRONG))
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.35rem;margin-bottom:0.5rem">{"".join(chips)}</div>'


def completion_html(
    completion: dict[str, Any],
    expert: str | None,
    tint: Tint,
    number: int,
    window: str = LAST,
    experts: Sequence[str] = (),
) -> str:
    """Return a completion with rewards and advantage, and the expert beside it (below it on a phone)."""
    heading = "font-size:0.75rem;opacity:0.75;margin-bottom:0.2rem"
    tokens = coloured(completion, tint, number, window, experts)
    beside = (
        ""
        if expert is None
        else f'<div><div style="{heading}">Expert</div><div style="border-left:3px solid {faded(EXPERT, 0.7)};'
        f'padding-left:0.7rem">{plain_box(expert)}</div></div>'
    )
    return (
        f"{_facts(completion)}"
        '<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:0.8rem 1.4rem'
        '">'
        f'<div><div style="{heading}">Completion</div>{tokens}</div>{beside}</div>'
    )


def selected(
    completions: Sequence[Mapping[str, Any]], kinds: Collection[str], order: str, *, fold: bool
) -> list[tuple[int, list[int]]]:
    """Return the places of the completions to show, each with the places of later ones of the same text, if `fold`.

    Args:
        kinds: of KINDS, all of which a completion must be.
        order: of ORDERS.
    """
    places = [place for place, one in enumerate(completions) if all(KINDS[kind](one) for kind in kinds)]
    if (field := ORDERS[order]) is not None:
        places.sort(key=lambda place: -float(completions[place][field]))
    groups: dict[object, list[int]] = {}
    for place in places:
        groups.setdefault(completions[place]["text"] if fold else place, []).append(place)
    return [(first, others) for first, *others in groups.values()]


def legible(png: bytes) -> bytes:
    """Return a PNG image at a legible size: small ones enlarged without blur, large ones scaled down."""
    picture = Image.open(io.BytesIO(png))
    longest = max(picture.size)
    factor = (2 * SMALL) // longest if longest < SMALL else min(LARGE / longest, 1)
    if factor == 1:
        return png
    size = (max(int(picture.width * factor), 1), max(int(picture.height * factor), 1))
    method = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    picture.resize(size, method).save(buffer, format="PNG")
    return buffer.getvalue()


def picture_html(png: bytes) -> str:
    """Return an image embedded in the page.

    Streamlit deletes its own image files when a live panel redraws, sometimes before the browser has loaded them.
    """
    content = base64.b64encode(legible(png)).decode()
    return (
        f'<img src="data:image/png;base64,{content}" alt="Image of the prompt" '
        'style="max-width:100%;border-radius:0.4rem;display:block">'
    )
