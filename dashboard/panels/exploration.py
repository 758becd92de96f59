"""Is the policy still exploring? Entropy, rareness weights, group outcomes, lengths, and the size of updates."""

from dashboard.charts.cards import Card, HeatCard, Line, StackCard
from dashboard.palette import CORRECT, ENTROPY, NEUTRAL, POLICY, RARENESS, VALIDATION, WRONG
from dashboard.panels.common import PanelCard, chart_panel
from dashboard.panels.panel import Panel

# In reading order: does it explore, which groups teach, what do the groups say, what do the updates do.
CARDS: tuple[PanelCard, ...] = (
    Card(
        "entropy",
        "Policy entropy",
        (
            Line("all tokens", "exploration/entropy", ENTROPY),
            Line("top-20 % entropy tokens", "exploration/entropy_top20", ENTROPY, dash="dot"),
        ),
    ),
    Card(
        "pass-at-k",
        "pass@1 vs pass@k",
        (
            Line("train pass@1", "reward/answer_accuracy", POLICY),
            Line("train pass@k", "exploration/pass_at_k", POLICY, dash="dot"),
            Line("val pass@1", "validation/accuracy", VALIDATION, sparse=True),
            Line("val pass@k", "validation/pass_at_k", VALIDATION, dash="dot", sparse=True),
        ),
        hint="The gap is the headroom for RL. Rising pass@1 with falling pass@k: the policy narrows to what it could "
        "already solve. k: rollouts per group.",
        share="of_all",
    ),
    StackCard(
        "groups-solved",
        "Group outcomes",
        (
            Line("all correct", "exploration/groups_all", CORRECT),
            Line("mixed", "exploration/groups_some", NEUTRAL),
            Line("none correct", "exploration/groups_none", WRONG),
        ),
        hint="Only mixed groups carry a learning signal. A band of “none correct” that fills the chart: too hard. "
        "A band of “all correct”: too easy.",
        unit="share of groups",
    ),
    Card(
        "active-groups",
        "Groups with non-zero advantage",
        (Line("non-zero advantage", "exploration/active_groups", POLICY),),
        share="of_all",
    ),
    Card(
        "rareness",
        "Rareness weight |A|",
        (
            Line("correct", "rareness/correct", CORRECT),
            Line("wrong", "rareness/wrong", WRONG, dash="dash"),
            Line("all", "rareness/mean", RARENESS, dash="dot"),
        ),
        hint="How rare an outcome is in its group. Correct above wrong: correct answers are the exception and weigh "
        "more.",
        unit="|advantage|",
    ),
    HeatCard(
        "Distribution of the rareness weight",
        {"all": "rareness", "correct": "rareness/correct", "wrong": "rareness/wrong"},
        hint="Stronger colour: more completions. A band that sinks to 0: the rollouts of a group have equal outcomes.",
        unit="|advantage|",
        colour=RARENESS,
    ),
    Card(
        "distinct-answers",
        "Distinct answers",
        (Line("distinct answers", "exploration/distinct_answers", ENTROPY),),
        value_format=".2f",
    ),
    Card(
        "common-wrong",
        "Wrong-answer concentration",
        (Line("most common wrong answer", "exploration/common_wrong_share", WRONG),),
        share="of_all",
    ),
    Card(
        "solved-then-lost",
        "Forgetting rate",
        (Line("solved, then lost", "exploration/solved_then_lost", WRONG),),
        share="small",
    ),
    Card(
        "covariance",
        "Entropy-change predictor",
        (Line("Cov(log π, A)", "exploration/logprob_advantage_cov", ENTROPY),),
        zero_line=True,
    ),
    Card("reward-spread", "Reward std", (Line("standard deviation", "reward/std"),)),
    Card(
        "length",
        "Completion length",
        (Line("mean", "length/mean"), Line("max", "length/max", dash="dot")),
        value_format=".1f",
    ),
    Card("truncated", "Truncation rate", (Line("truncated", "length/truncated_share", WRONG),), share="small"),
    Card(
        "clip",
        "Clip fraction",
        (
            Line("low", "clip/low_share", POLICY, dash="dash"),
            Line("high", "clip/high_share", POLICY),
            Line("dual", "clip/dual_share", NEUTRAL, dash="dot"),
        ),
        hint="Share of tokens whose update the clip stopped. High: the clip holds back rare good tokens. A steady "
        "rise: the steps are too large.",
        share="small",
    ),
    Card(
        "ratio",
        "Probability ratio",
        (
            Line("mean", "ratio/mean", POLICY),
            Line("max", "ratio/max", POLICY, dash="dash"),
            Line("effective sample size", "ratio/ess", NEUTRAL, dash="dot"),
        ),
        hint="π_new / π_old per mini-batch. With one mini-batch per step it stays at 1. An effective sample size below "
        "0.9: a few tokens dominate the update.",
    ),
    Card(
        "kl",
        "Approx. KL per step (old ‖ new)",
        (Line("approx. KL", "kl/approx", POLICY),),
        value_format=".5f",
    ),
    Card("kl-reference", "KL to the reference", (Line("KL", "loss/kl", POLICY),), value_format=".4f"),
    Card("kl-sampler", "Sampler mismatch", (Line("KL", "kl/sampler", WRONG),), value_format=".5f"),
    Card(
        "image-gain",
        "Use of the image",
        (
            Line("blank", "image/gain_blank", NEUTRAL, dash="dot", sparse=True),
            Line("shuffled", "image/gain_shuffle", RARENESS, dash="dash", sparse=True),
            Line("swapped", "image/gain_swap", POLICY, sparse=True),
        ),
        hint="Log-probability of a completion with its image, minus that with a changed one. Near 0: the policy does "
        "not use the content of the image. Rollouts can be coloured by it.",
        zero_line=True,
        value_format=".2f",
    ),
    Card(
        "image-accuracy",
        "Accuracy with changed images",
        (
            Line("own image", "validation/accuracy", VALIDATION, sparse=True),
            Line("blank", "validation/accuracy_blank", NEUTRAL, dash="dot", sparse=True),
            Line("shuffled", "validation/accuracy_shuffle", RARENESS, dash="dash", sparse=True),
            Line("swapped", "validation/accuracy_swap", POLICY, sparse=True),
        ),
        hint="Measured for the changes that `validation.image_changes` names. A line near that of the own image: the "
        "answers do not need the image.",
        share="of_all",
    ),
)
draw = chart_panel(CARDS)


PANELS = (Panel("Exploration", draw, 20, of_rollouts=True, charted=True),)
