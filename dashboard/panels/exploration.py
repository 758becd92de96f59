"""Is it still exploring? Entropy, rareness weights, groups with an advantage, and length."""

from dashboard import charts, live_chart, states
from dashboard.charts import Curve
from dashboard.palette import CORRECT, ENTROPY, NEUTRAL, POLICY, RARENESS, WRONG
from dashboard.panels.common import algorithm, grid, heat, live, nothing, read, waiting
from dashboard.series import Series
from jobs.schemas import Job

NAMES = (
    "exploration/entropy",
    "exploration/entropy_top20",
    "exploration/active_groups",
    "exploration/groups_all",
    "exploration/groups_none",
    "reward/std",
    "rareness/mean",
    "rareness/correct",
    "rareness/wrong",
    "length/mean",
    "length/truncated_share",
    "clip/low_share",
    "clip/high_share",
    "clip/dual_share",
)


def draw(job: Job) -> None:
    if algorithm(job) == "sft":
        states.empty("Nothing to explore", "Supervised fine-tuning samples nothing: it imitates the expert.")
    elif not waiting(job):
        live(job, _panel)


def _entropy(of: dict[str, Series]) -> None:
    lines = [
        Curve("all tokens", of["exploration/entropy"], ENTROPY),
        Curve("most undecided fifth", of["exploration/entropy_top20"], ENTROPY, dash="dot"),
    ]
    live_chart.card(
        "Policy entropy",
        "Look for a slow fall. A fast drop towards 0 means that it has stopped exploring; rising entropy with falling "
        "accuracy is noise, not exploration.",
        charts.curves(lines, unit="nats a token"),
        key="entropy",
    )


def _rareness(of: dict[str, Series]) -> None:
    lines = [
        Curve("correct", of["rareness/correct"], CORRECT),
        Curve("wrong", of["rareness/wrong"], WRONG),
        Curve("all", of["rareness/mean"], RARENESS),
    ]
    live_chart.card(
        "Rareness weight |A|",
        "How rare an outcome was in its group. Correct above wrong: successes are the exception, and weigh more.",
        charts.curves(lines, unit="|advantage|"),
        key="rareness",
    )


def _active(of: dict[str, Series]) -> None:
    lines = [
        Curve("with advantage", of["exploration/active_groups"], POLICY),
        Curve("all solved", of["exploration/groups_all"], CORRECT, dash="dot"),
        Curve("none solved", of["exploration/groups_none"], WRONG, dash="dot"),
    ]
    live_chart.card(
        "Groups with an advantage",
        "Groups whose rewards differ, be it only for the format: unsolved ones may be among them. The others teach "
        "nothing; near 0 there is nothing left to learn.",
        charts.curves(lines, unit="share of groups", share="of_all"),
        key="active-groups",
    )


def _length(of: dict[str, Series]) -> None:
    live_chart.card(
        "Completion length",
        "Length that grows without accuracy is rambling; a sudden drop often comes with collapsed entropy.",
        charts.curves([Curve("mean length", of["length/mean"], NEUTRAL)], unit="tokens", value_format=".1f"),
        key="length",
    )


def _truncated(of: dict[str, Series]) -> None:
    lines = [Curve("cut at the limit", of["length/truncated_share"], WRONG)]
    live_chart.card(
        "Truncated completions",
        "Cut at max_completion_tokens. More than a few per cent: the limit is too low, or the model rambles.",
        charts.curves(lines, unit="share of completions", share="small"),
        key="truncated",
    )


def _spread(of: dict[str, Series]) -> None:
    live_chart.card(
        "Spread of rewards",
        "Standard deviation of the step's rewards. Near 0, completions fare all alike, and the policy learns little.",
        charts.curves([Curve("standard deviation", of["reward/std"], NEUTRAL)], unit="reward"),
        key="reward-spread",
    )


def _clip(of: dict[str, Series]) -> None:
    lines = [
        Curve("low", of["clip/low_share"], WRONG),
        Curve("high", of["clip/high_share"], CORRECT),
        Curve("dual", of["clip/dual_share"], NEUTRAL),
    ]
    live_chart.card(
        "Clipped tokens",
        "Where the clip stopped the update. High clips hold back rare good tokens; a steady rise: steps too large.",
        charts.curves(lines, unit="share of tokens", share="small"),
        key="clip",
    )


def _heat(job: Job) -> None:
    heat(
        job,
        "rareness",
        title="Distribution of the rareness weight",
        hint="Stronger colour: more completions. A band that sinks to 0 means that groups agree with themselves.",
        colour=RARENESS,
        unit="|advantage|",
    )


def _panel(job: Job) -> None:
    of = read(job, NAMES)
    if nothing(job, of):
        return
    grid(
        [
            lambda: _entropy(of),
            lambda: _active(of),
            lambda: _rareness(of),
            lambda: _heat(job),
            lambda: _spread(of),
            lambda: _length(of),
            lambda: _truncated(of),
            lambda: _clip(of),
        ]
    )
