"""A sampled group as HTML: completions token by token, each beside the expert.

Every word of it came from a model or a data set, so every word is escaped: it is text, never HTML, Markdown or LaTeX.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from calibrl.schemas import find_algorithm
from dashboard.markup import chip, escape
from dashboard.palette import CORRECT, ENTROPY, EXPERT, NEUTRAL, POLICY, RARENESS, WRONG, faded

TOKENS = 2000  # tokens of a completion that are coloured; the rest is shown plain
SMALL = 160  # pixels; smaller images are enlarged, pixel by pixel
LARGE = 1024  # pixels; larger images are made smaller
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
    """A way to colour tokens: which numbers, their unit, and where the colour is fullest."""

    label: str
    field: str  # of `SampleCompletion`, one number a token
    unit: str
    full: float
    above: str  # colour of values above 0
    below: str  # colour of values below 0
    hint: str
    scale: tuple[tuple[float, str], ...]  # values of the legend, and how it says them
    middle: float = 0.0  # the value without colour


TINTS = {  # by label, which also stands in the address
    tint.label: tint
    for tint in (
        Tint(
            "Gap to the expert",
            "gaps",
            "nats",
            6.0,
            POLICY,
            EXPERT,
            "Blue: the policy was surer of this token than of the expert's there. Pink: it was less sure.",
            ((-6, "−6 nats or less"), (-3, "−3"), (0, "0"), (3, "+3"), (6, "+6 nats or more")),
        ),
        Tint(
            "Entropy",
            "entropies",
            "nats",
            2.0,
            ENTROPY,
            ENTROPY,
            "Stronger: more undecided at this token.",
            ((0, "0 nats"), (1, "1"), (2, "2 nats or more")),
        ),
        Tint(
            "Log-probability",
            "logprobs",
            "nats",
            4.0,
            NEUTRAL,
            NEUTRAL,
            "Stronger: a less likely token.",
            ((0, "0 nats"), (-2, "−2"), (-4, "−4 nats or less")),
        ),
        Tint(
            "Ratio",
            "ratios",
            "times as likely as when it was sampled",
            0.2,
            CORRECT,
            EXPERT,
            "As the update met the token. Green: likelier than when it was sampled. Pink: less likely.",
            ((0.8, "0.8 times or less"), (0.9, "0.9"), (1, "1"), (1.1, "1.1"), (1.2, "1.2 times or more")),
            middle=1.0,
        ),
        Tint(
            "Clipping",
            "clipping",
            "(1: held back above the range, -1: below it)",
            1.0,
            RARENESS,
            EXPERT,
            "Yellow and pink: the clip stopped this token's gradient, above and below its range.",
            ((-1, "held back below the range"), (0, "not held back"), (1, "held back above it")),
        ),
    )
}


def clipping(completion: dict[str, Any], settings: Mapping[str, Any]) -> list[float | None]:
    """Return for each token if the clip stopped its gradient: 1 above the range, -1 below it, 0 not; None: no ratio.

    `settings`: the job's algorithm. An algorithm that `clips_sequences` clips a completion as a whole, by the geometric
    mean of its ratios.
    """
    advantage = _value(completion["advantage"]) or 0.0
    ratios = [_value(ratio) for ratio in completion.get("ratios") or [None] * len(completion["tokens"])]
    algorithm = find_algorithm(settings["type"])
    if algorithm is not None and algorithm.clips_sequences:
        known = [ratio for ratio in ratios if ratio]
        if len(known) < len(ratios) or _left_out(completion) or not known:
            return [None] * len(ratios)
        ratios = [math.exp(math.fsum(map(math.log, known)) / len(known))] * len(ratios)
    return [None if ratio is None else _clip(ratio, advantage, settings) for ratio in ratios]


def _clip(ratio: float, advantage: float, settings: Mapping[str, Any]) -> float:
    if advantage > 0:
        return float(ratio > 1 + settings["clip_high"])
    if advantage < 0:
        return float(ratio > settings["dual_clip"]) - float(ratio < 1 - settings["clip_low"])
    return 0.0


def _value(value: Any) -> float | None:
    """A number of a group's JSON, where not finite ones are strings; None where there is none."""
    return None if value is None else float(value)


def _colour(value: float, tint: Tint) -> str:
    away = value - tint.middle
    strength = 1.0 if not math.isfinite(value) else min(abs(away) / tint.full, 1.0)
    return faded(tint.above if away >= 0 else tint.below, 0.65 * strength)


def legend(tint: Tint) -> str:
    """Which colour means which value; it brings the style of the tokens below it, too."""
    swatch = '<span style="{};padding:0 .45rem;border-radius:.2rem">{}</span>'
    swatches = [swatch.format(f"background:{_colour(value, tint)}", text) for value, text in tint.scale]
    return (
        f'{TOKEN_STYLE}<div style="display:flex;flex-wrap:wrap;gap:.25rem .4rem;font-size:.8rem">'
        f"<span>{escape(tint.label)}:</span>{''.join(swatches)}{swatch.format('opacity:0.75', 'faint: no value')}</div>"
    )


def _token(text: str, value: float | None, tint: Tint, name: str) -> str:
    if value is None:
        said, style = f"no {tint.label.lower()} here", "opacity:0.75"
    else:
        said, style = (
            f"{tint.label} {value:+.3f} {tint.unit}",
            f"background:{_colour(value, tint)};border-radius:0.2rem",
        )
    blank = "" if text.strip() else f' aria-label="blank, {escape(said)}"'
    button = f'<input type="radio" name="{name}"{blank}>'
    return f'<label title="{escape(said)}" style="{style}">{button}{escape(text)}</label>'


def coloured(completion: dict[str, Any], tint: Tint, number: int) -> str:
    """The tokens of the completion with this number. Each has its value on hover, and beside it once it is chosen.

    They are radio buttons in all but looks: without a script a tap chooses one, arrow keys go from one to the next, and
    all of them are a single stop of the tab key.
    """
    tokens: Sequence[str] = completion["tokens"]
    values = completion.get(tint.field) or [None] * len(tokens)  # samples of former versions have no ratios
    name = f"token-{number}"
    spans = [_token(token, _value(value), tint, name) for token, value in zip(tokens[:TOKENS], values, strict=False)]
    spans += map(escape, tokens[TOKENS:])
    if left_out := _left_out(completion):
        spans.insert((len(tokens) + 1) // 2, f"<b> [... {left_out:,} tokens left out ...] </b>")
    told = f'role="radiogroup" aria-label="Tokens of completion {number + 1}"'
    return f'<div class="tokens" {told} style="{BOX}">{"".join(spans)}</div>'


def _left_out(completion: dict[str, Any]) -> int:
    """Tokens that are not kept; samples of former versions don't say."""
    return int(completion.get("left_out", 0))


def plain_box(text: str) -> str:
    """Text of a model or data set, as it is."""
    return f'<div style="{BOX}">{escape(text)}</div>'


def _facts(completion: dict[str, Any]) -> str:
    passed = bool(completion["passed"])
    chips = [chip("✓ correct" if passed else "✕ wrong", CORRECT if passed else WRONG)]
    chips.append(chip(f"advantage {_value(completion['advantage']):+.2f}", RARENESS))
    chips.append(chip(f"reward {_value(completion['reward']):.2f}", POLICY))
    chips += [chip(f"{name} {_value(value):g}", NEUTRAL) for name, value in completion["rewards"].items()]
    chips.append(chip(f"{len(completion['tokens']) + _left_out(completion)} tokens", NEUTRAL))
    if completion["truncated"]:
        chips.append(chip("cut at the limit", WRONG))
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.35rem;margin-bottom:0.5rem">{"".join(chips)}</div>'


def completion_html(completion: dict[str, Any], expert: str | None, tint: Tint, number: int) -> str:
    """A completion with its rewards and advantage, and the expert beside it (below it on a phone)."""
    heading = "font-size:0.75rem;opacity:0.75;margin-bottom:0.2rem"
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
        f'<div><div style="{heading}">Completion</div>{coloured(completion, tint, number)}</div>{beside}</div>'
    )


def legible(png: bytes) -> bytes:
    """A small image enlarged without blur, so that its pixels can be seen; a huge one made smaller."""
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
    """An image within the page itself: Streamlit's own image files are gone before a browser gets them, when a live
    panel redraws at a bad moment."""
    content = base64.b64encode(legible(png)).decode()
    return (
        f'<img src="data:image/png;base64,{content}" alt="The prompt\'s image" '
        'style="max-width:100%;border-radius:0.4rem;display:block">'
    )
