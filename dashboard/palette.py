"""Colours. One colour has one meaning on every page.

Colour-blind readers can distinguish all of them (after Okabe and Ito). Each has a contrast of at least 3:1 on the light
and on the dark background.
"""

CORRECT = "#009E73"  # completions that passed
WRONG = "#D55E00"  # completions that failed
POLICY = "#0072B2"  # the policy over all its rollouts
VALIDATION = "#8A63D2"  # data that training never uses
ENTROPY = "#2B8FC9"
RARENESS = "#BB8000"
EXPERT = "#CC5FA0"
NEUTRAL = "#7D838C"  # sums and bookkeeping

# Lines of several jobs, and evaluated models, in their order.
MODELS = (POLICY, RARENESS, VALIDATION, CORRECT, EXPERT, WRONG, ENTROPY, NEUTRAL)


def faded(colour: str, opacity: float) -> str:
    """Return a colour of this module with an opacity from 0 to 1, in the notation of CSS and Plotly."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.3g})"
