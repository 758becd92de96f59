"""Colours. One colour means one thing on every page; all are told apart by the colour-blind (after Okabe and Ito) and
keep a contrast of at least 3:1 on the light and on the dark background."""

CORRECT = "#009E73"  # completions that passed
WRONG = "#D55E00"  # completions that failed
POLICY = "#0072B2"  # the policy over all its rollouts
HELD_OUT = "#8A63D2"  # data that training never sees
ENTROPY = "#2B8FC9"
RARENESS = "#BB8000"
EXPERT = "#CC5FA0"
NEUTRAL = "#7D838C"  # sums and bookkeeping

MODELS = (NEUTRAL, POLICY, HELD_OUT, RARENESS, CORRECT, EXPERT, WRONG, ENTROPY)  # evaluated models, in the job's order


def faded(colour: str, opacity: float) -> str:
    """A colour of this module with an opacity from 0 to 1, as CSS and Plotly write it."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.3g})"
