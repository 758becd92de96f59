"""Is it still exploring? Entropy, rareness weights, groups with an advantage, and length."""

from functools import partial

from calibrl.schemas import Job
from dashboard import states
from dashboard.charts import figures, live_chart
from dashboard.charts.figures import Curve
from dashboard.charts.series import Series
from dashboard.palette import CORRECT, ENTROPY, HELD_OUT, NEUTRAL, POLICY, RARENESS, WRONG
from dashboard.panels.common import algorithm, draw_live, grid, heat, nothing, read, waiting

NAMES = (
    "exploration/entropy",
    "exploration/entropy_top20",
    "exploration/active_groups",
    "exploration/groups_none",
    "exploration/groups_some",
    "exploration/groups_all",
    "exploration/pass_at_k",
    "exploration/distinct_answers",
    "exploration/common_wrong_share",
    "exploration/solved_then_lost",
    "exploration/logprob_advantage_cov",
    "reward/answer_accuracy",
    "reward/std",
    "validation/accuracy",
    "validation/pass_at_k",
    "rareness/mean",
    "rareness/correct",
    "rareness/wrong",
    "length/mean",
    "length/max",
    "length/truncated_share",
    "clip/low_share",
    "clip/high_share",
    "clip/dual_share",
    "ratio/mean",
    "ratio/max",
    "ratio/ess",
    "kl/approx",
)


def draw(job: Job) -> None:
    if algorithm(job) == "sft":
        states.empty("Nothing to explore", "Supervised fine-tuning samples nothing: it imitates the expert.")
    elif not waiting(job):
        draw_live(job, _panel)


def _entropy(of: dict[str, Series]) -> None:
    lines = [
        Curve("all tokens", of["exploration/entropy"], ENTROPY),
        Curve("most undecided fifth", of["exploration/entropy_top20"], ENTROPY, dash="dot"),
    ]
    live_chart.card(
        "Policy entropy",
        "Look for a slow fall. A fast drop towards 0 means that it has stopped exploring; rising entropy with falling "
        "accuracy is noise, not exploration.",
        figures.curves(lines, unit="nats a token"),
        key="entropy",
    )


def _rareness(of: dict[str, Series]) -> None:
    lines = [
        Curve("correct", of["rareness/correct"], CORRECT),
        Curve("wrong", of["rareness/wrong"], WRONG, dash="dash"),
        Curve("all", of["rareness/mean"], RARENESS, dash="dot"),
    ]
    live_chart.card(
        "Rareness weight |A|",
        "How rare an outcome was in its group. Correct above wrong: successes are the exception, and weigh more.",
        figures.curves(lines, unit="|advantage|"),
        key="rareness",
    )


def _solved(of: dict[str, Series]) -> None:
    parts = [
        ("all solved", of["exploration/groups_all"], CORRECT),
        ("some solved", of["exploration/groups_some"], NEUTRAL),
        ("none solved", of["exploration/groups_none"], WRONG),
    ]
    live_chart.card(
        "Groups solved",
        "Groups with some right answers teach which they are. A band of none or all that fills the chart: too hard, "
        "or too easy.",
        figures.stacked([part for part in parts if len(part[1])], unit="share of groups", shares=True),
        key="groups-solved",
    )


def _active(of: dict[str, Series]) -> None:
    lines = [Curve("with advantage", of["exploration/active_groups"], POLICY)]
    live_chart.card(
        "Groups with an advantage",
        "Groups whose rewards differ, be it only for the format: unsolved ones may be among them. The others teach "
        "nothing; near 0 there is nothing left to learn.",
        figures.curves(lines, unit="share of groups", share="of_all"),
        key="active-groups",
    )


def _pass(of: dict[str, Series]) -> None:
    lines = [
        Curve("one try", of["reward/answer_accuracy"], POLICY),
        Curve("any", of["exploration/pass_at_k"], POLICY, dash="dot"),
        Curve("held out", of["validation/accuracy"], HELD_OUT, sparse=True),
        Curve("held out, any", of["validation/pass_at_k"], HELD_OUT, dash="dot", sparse=True),
    ]
    live_chart.card(
        "Pass@1 against pass@k",
        "The distance is what there is to amplify. Pass@1 that rises while pass@k falls: the policy narrows to what "
        "it could do anyway.",
        figures.curves(lines, unit="share", share="of_all"),
        key="pass-at-k",
    )


def _answers(of: dict[str, Series]) -> None:
    lines = [Curve("distinct answers", of["exploration/distinct_answers"], ENTROPY)]
    live_chart.card(
        "Distinct answers",
        "Different answers that a group gives. Towards 1: groups agree, rightly or wrongly.",
        figures.curves(lines, unit="answers a group", value_format=".2f"),
        key="distinct-answers",
    )


def _common_wrong(of: dict[str, Series]) -> None:
    lines = [Curve("the commonest mistake", of["exploration/common_wrong_share"], WRONG)]
    live_chart.card(
        "Agreement on mistakes",
        "Wrong completions that give their group's commonest wrong answer. A rise: the policy settles on mistakes.",
        figures.curves(lines, unit="share of wrong completions", share="of_all"),
        key="common-wrong",
    )


def _lost(of: dict[str, Series]) -> None:
    lines = [Curve("solved, then lost", of["exploration/solved_then_lost"], WRONG)]
    live_chart.card(
        "Solved, then lost",
        "Of the prompts solved at their last visit, those that no rollout solves now; from the second epoch on. A rise "
        "is forgetting.",
        figures.curves(lines, unit="share of prompts", share="small"),
        key="solved-then-lost",
    )


def _length(of: dict[str, Series]) -> None:
    lines = [
        Curve("mean length", of["length/mean"], NEUTRAL),
        Curve("longest", of["length/max"], NEUTRAL, dash="dot"),
    ]
    live_chart.card(
        "Completion length",
        "Length that grows without accuracy is rambling; a sudden drop often comes with collapsed entropy.",
        figures.curves(lines, unit="tokens", value_format=".1f"),
        key="length",
    )


def _truncated(of: dict[str, Series]) -> None:
    lines = [Curve("cut at the limit", of["length/truncated_share"], WRONG)]
    live_chart.card(
        "Truncated completions",
        "Cut at max_completion_tokens. More than a few per cent: the limit is too low, or the model rambles.",
        figures.curves(lines, unit="share of completions", share="small"),
        key="truncated",
    )


def _spread(of: dict[str, Series]) -> None:
    live_chart.card(
        "Spread of rewards",
        "Standard deviation of the step's rewards. Near 0, completions fare all alike, and the policy learns little.",
        figures.curves([Curve("standard deviation", of["reward/std"], NEUTRAL)], unit="reward"),
        key="reward-spread",
    )


def _clip(of: dict[str, Series]) -> None:
    lines = [
        Curve("low", of["clip/low_share"], POLICY, dash="dash"),
        Curve("high", of["clip/high_share"], POLICY),
        Curve("dual", of["clip/dual_share"], NEUTRAL, dash="dot"),
    ]
    live_chart.card(
        "Clipped tokens",
        "Where the clip stopped the update. High clips hold back rare good tokens; a steady rise: steps too large.",
        figures.curves(lines, unit="share of tokens", share="small"),
        key="clip",
    )


def _ratio(of: dict[str, Series]) -> None:
    lines = [
        Curve("mean", of["ratio/mean"], POLICY),
        Curve("largest", of["ratio/max"], POLICY, dash="dash"),
        Curve("effective sample size", of["ratio/ess"], NEUTRAL, dash="dot"),
    ]
    live_chart.card(
        "Probability ratio",
        "The policy that each mini-batch met against the one that sampled: with one mini-batch a step it stays at 1. "
        "An effective sample size below 0.9 means that a few tokens decide.",
        figures.curves(lines, unit="ratio"),
        key="ratio",
    )


def _moved(of: dict[str, Series]) -> None:
    live_chart.card(
        "How far a step moves the policy",
        "Divergence from the policy that sampled. Jumps ask for a lower learning rate.",
        figures.curves([Curve("approximate KL", of["kl/approx"], POLICY)], unit="nats a token", value_format=".5f"),
        key="kl",
    )


def _covariance(of: dict[str, Series]) -> None:
    lines = [Curve("covariance", of["exploration/logprob_advantage_cov"], ENTROPY)]
    live_chart.card(
        "What entropy does next",
        "Covariance of log-probability and advantage. Above 0 likely tokens are made likelier, and entropy is about "
        "to fall, the faster the larger.",
        figures.curves(lines, unit="nats x reward", zero_line=True),
        key="covariance",
    )


def _heat(job: Job) -> None:
    heat(
        job,
        {"all": "rareness", "correct": "rareness/correct", "wrong": "rareness/wrong"},
        title="Distribution of the rareness weight",
        hint="Stronger colour: more completions. A band that sinks to 0 means that groups agree with themselves.",
        colour=RARENESS,
        unit="|advantage|",
    )


# In reading order: does it explore, what teaches, what do groups say, what do updates do.
CARDS = (
    _entropy, _pass, _solved, _active, _rareness, _answers, _common_wrong, _lost, _covariance, _spread, _length,
    _truncated, _clip, _ratio, _moved,
)  # fmt: skip
HEAT_AT = 5  # the distribution stands beside its means


def _panel(job: Job) -> None:
    of = read(job, NAMES)
    if nothing(job, of):
        return
    cards = [partial(card, of) for card in CARDS]
    grid([*cards[:HEAT_AT], lambda: _heat(job), *cards[HEAT_AT:]])
