"""A sampled group as HTML: any text in it is inert."""

import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from dashboard.views.completions import (
    LAST,
    TINTS,
    WINDOW,
    clipping,
    coloured,
    completion_html,
    legend,
    legible,
    plain_box,
    selected,
    windows,
)

ENTROPY = TINTS["Entropy"]


class Parsed(HTMLParser):
    """Tags, attribute names and text of a piece of HTML, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.titles: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.text += data


def completion(*tokens: str, **changes: Any) -> dict[str, Any]:
    count = len(tokens)
    return {
        "text": "".join(tokens),
        "tokens": list(tokens),
        "logprobs": [-0.5] * count,
        "entropies": [0.25] * count,
        "gaps": [1.5] * count,
        "rewards": {"math": 1.0},
        "reward": 1.0,
        "advantage": 0.5,
        "passed": True,
        "truncated": False,
    } | changes


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS)
@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '<img src=x onerror="alert(1)">',
        "</span></div><style>*{display:none}</style>",
        '" onmouseover="alert(1)',
        "[link](javascript:alert(1)) **bold** $x^2$ :smile:",
        "&lt;b&gt; &amp;",
    ],
)
def test_every_text_is_shown_literally_and_is_inert(tint: Any, hostile: str) -> None:
    group = completion("<", hostile, hostile[:5], rewards={hostile: 1.0})
    parsed = Parsed(completion_html(group, hostile, tint, 0))
    assert parsed.tags == {"div", "span", "label", "input"}
    assert parsed.attributes <= {"style", "title", "class", "role", "aria-label", "type", "name"}
    assert parsed.text.count(hostile) >= 3  # a token, the expert and a verifier's name


def test_a_token_shows_its_value_or_that_it_has_none() -> None:
    parsed = Parsed(completion_html(completion("a", "b", gaps=[-2.0, None]), None, TINTS["Gap to the expert"], 0))
    assert parsed.titles == ["Gap to the expert -2.000 nats", "no gap to the expert here"]


def test_each_completion_is_one_button_group_and_blank_tokens_have_names() -> None:
    html = coloured(completion("a", "\n", " b"), TINTS["Entropy"], 3)
    assert html.count('<input type="radio" name="token-3"') == 3
    assert 'aria-label="Tokens of completion 4"' in html
    assert 'aria-label="blank, Entropy +0.250 nats">\n</label>' in html
    assert html.count("blank") == 1


@pytest.mark.parametrize("tint", TINTS.values(), ids=TINTS)
def test_the_legend_has_the_colours_of_the_tokens(tint: Any) -> None:
    values = [value for value, _ in tint.scale]
    tokens = coloured(completion(*"t" * len(values), **{tint.field: values}), tint, 0)
    colours = re.findall(r"background:(rgba[^;]+)", tokens)
    assert re.findall(r"background:(rgba[^;]+)", legend(tint)) == colours
    assert max(abs(value - tint.middle) for value in values) == pytest.approx(tint.full)
    assert all(text in Parsed(legend(tint)).text for _, text in tint.scale)


def test_ratios_are_coloured_around_one_and_old_samples_have_none() -> None:
    group = completion("a", "b", "c", ratios=[1.0, 1.2, None])
    parsed = Parsed(completion_html(group, None, TINTS["Ratio"], 0))
    assert [title.split()[:2] for title in parsed.titles] == [["Ratio", "+1.000"], ["Ratio", "+1.200"], ["no", "ratio"]]
    assert ",0)" in completion_html(completion("a", ratios=[1.0]), None, TINTS["Ratio"], 0)
    assert Parsed(completion_html(completion("a"), None, TINTS["Ratio"], 0)).titles == ["no ratio here"]


def test_clipping_follows_the_sign_of_the_advantage() -> None:
    settings = {"type": "grpo", "clip_low": 0.2, "clip_high": 0.3, "dual_clip": 3.0}
    ratios = [0.79, 0.81, 1.0, 1.29, 1.31, 3.1, None]
    tokens = ["t"] * len(ratios)
    found = [clipping(completion(*tokens, ratios=ratios, advantage=advantage), settings) for advantage in (1, -1, 0)]
    assert found == [
        [0, 0, 0, 0, 1, 1, None],
        [-1, 0, 0, 0, 0, 1, None],
        [0, 0, 0, 0, 0, 0, None],
    ]
    assert clipping(completion("a"), settings) == [None]


def test_gspo_clips_a_completion_whole() -> None:
    settings = {"type": "gspo", "clip_low": 0.0003, "clip_high": 0.0004, "dual_clip": 3.0}
    assert clipping(completion("a", "b", ratios=[1.25, 0.8], advantage=1), settings) == [0, 0]
    assert clipping(completion("a", "b", ratios=[1.25, 0.81], advantage=1), settings) == [1, 1]
    assert clipping(completion("a", "b", ratios=[1.25, 0.81], advantage=1, left_out=3), settings) == [None, None]


def test_values_that_json_can_not_say_are_shown() -> None:
    group = completion("a", "b", gaps=["Infinity", "NaN"], advantage="NaN")
    parsed = Parsed(completion_html(group, None, TINTS["Gap to the expert"], 0))
    assert parsed.titles == ["Gap to the expert +inf nats", "Gap to the expert +nan nats"]
    assert "advantage NaN" in parsed.text
    assert "advantage −0.61" in Parsed(completion_html(completion("a", advantage=-0.61), None, ENTROPY, 0)).text
    assert "reward −infinite" in Parsed(completion_html(completion("a", reward="-Infinity"), None, ENTROPY, 0)).text


def numbered(count: int, **changes: Any) -> dict[str, Any]:
    """Return a completion whose token `n` is the text `n;` and has the entropy n / 1000."""
    tokens = [f"{place};" for place in range(1, count + 1)]
    return completion(*tokens, entropies=[place / 1000 for place in range(1, count + 1)], **changes)


def test_the_end_of_a_long_completion_is_coloured_first() -> None:
    parsed = Parsed(completion_html(numbered(8000), None, TINTS["Entropy"], 0))
    assert len(parsed.titles) == WINDOW
    assert parsed.titles[-1] == "Entropy +8.000 nats"
    assert "Tokens 1 to 7,000, without colours" in parsed.text
    assert all(f"{place};" in parsed.text for place in range(1, 8001))


def test_every_token_of_a_long_completion_is_coloured_in_a_window() -> None:
    group = {"completions": [numbered(2500), numbered(10)]}
    names = windows(group)
    assert names == [LAST, "1 to 1,000", "1,001 to 2,000", "2,001 to 3,000"]
    titles = {title for name in names for title in Parsed(coloured(group["completions"][0], ENTROPY, 0, name)).titles}
    assert titles == {f"Entropy {place / 1000:+.3f} nats" for place in range(1, 2501)}
    middle = Parsed(coloured(group["completions"][0], ENTROPY, 0, "1,001 to 2,000"))
    assert "Tokens 1 to 1,000, without" in middle.text and "Tokens 2,001 to 2,500, without" in middle.text
    assert len(Parsed(coloured(group["completions"][1], ENTROPY, 0, "1,001 to 2,000")).titles) == 10
    assert windows({"completions": [numbered(WINDOW)]}) == [LAST]


@pytest.mark.parametrize("window", ["1 to 1,000", "1,001 to 2,000", "2,001 to 3,000"])
def test_the_note_of_omitted_tokens_keeps_its_place_in_every_window(window: str) -> None:
    parsed = Parsed(coloured(numbered(3000, left_out=7), ENTROPY, 0, window))
    assert "1500; [... 7 tokens omitted ...] 1501;" in parsed.text


def gradient_png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_small_image_is_enlarged_by_whole_pixels() -> None:
    small = gradient_png(56, 28)
    large = Image.open(io.BytesIO(legible(small)))
    assert large.size == (280, 140)
    assert large.getpixel((4, 4)) == Image.open(io.BytesIO(small)).getpixel((0, 0))


def test_an_image_of_middling_size_stays_as_it_is() -> None:
    assert legible(gradient_png(400, 300)) == gradient_png(400, 300)


def test_a_huge_image_is_made_smaller() -> None:
    assert Image.open(io.BytesIO(legible(gradient_png(4096, 2)))).size == (1024, 1)


def test_a_shortened_completion_says_where_text_is_missing() -> None:
    long = completion("a", "b", "y", "z", left_out=1234)
    parsed = Parsed(completion_html(long, None, TINTS["Entropy"], 0))
    assert "ab [... 1,234 tokens omitted ...] yz" in parsed.text
    assert "1238 tokens" in parsed.text
    whole = Parsed(completion_html(completion("a", "b"), None, TINTS["Entropy"], 0))
    assert "omitted" not in whole.text


def test_controls_of_the_text_direction_are_named() -> None:
    assert plain_box("a\u202eb").endswith('>a<b title="control of the text direction">[U+202E]</b>b</div>')
    given = completion("x", "\u2067")
    assert "[U+2067]" in coloured(given, TINTS["Entropy"], 0) and "\u2067" not in coloured(given, TINTS["Entropy"], 0)


def test_completions_are_ordered_and_filtered() -> None:
    group = [
        completion("a", reward=0.1, passed=False),
        completion("b", reward=0.9, truncated=True),
        completion("a", reward=0.1, passed=False, truncated=True),
    ]
    assert selected(group, (), "As sampled", fold=True) == [(0, [2]), (1, [])]
    assert selected(group, (), "Highest reward", fold=False) == [(1, []), (0, []), (2, [])]
    assert selected(group, ("Wrong", "Truncated"), "As sampled", fold=True) == [(2, [])]


def test_a_token_names_the_experts_token_at_its_position() -> None:
    """Two tokens are stored before, and two behind three that are left out: the last ones are the 6th and the 7th."""
    given = completion("a", "b", "f", "g", left_out=3)
    experts = ["1", "2", "3", "4", "5", "6"]
    titles = Parsed(coloured(given, ENTROPY, 0, experts=experts)).titles
    assert [title.partition("; ")[2] for title in titles] == [
        "expert's token '1'",
        "expert's token '2'",
        "expert's token '6'",
        "",
    ]
