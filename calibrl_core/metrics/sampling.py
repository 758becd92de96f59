"""Metrics of a step's rollouts: rewards, exploration, rareness weights and lengths."""

from calibrl_core.metrics.base import Metric, MetricFamily

REWARD = MetricFamily(
    "reward/",
    (
        Metric(
            "reward/mean",
            "reward",
            "Mean reward: the weighted sum of all verifier scores.",
            "It should rise and then level off. A rise without accuracy is reward hacking.",
            "up",
            label="reward",
        ),
        Metric(
            "reward/std",
            "reward",
            "Standard deviation of the reward over all rollouts.",
            "Near 0 the rewards are nearly equal, and the policy learns little.",
        ),
        Metric(
            "reward/answer_accuracy",
            "share",
            "Share of completions with a correct answer, in any format.",
            "The main curve of a run: it should rise.",
            "up",
            label="accuracy",
        ),
        Metric(
            "reward/strict_accuracy",
            "share",
            "Share of completions with a correct answer in the requested format.",
            "Far below answer accuracy: the format is not learned yet.",
            "up",
        ),
        Metric(
            "reward/verifier_failures",
            "completions",
            "Scores that a verifier failed to give because it was too slow or its process died. They count as 0.",
            "Any value above 0 needs attention: look for the verifier in the log.",
            "down",
        ),
        Metric(
            "reward/verifier_failure_share",
            "share",
            "Share of completions for which a verifier gave no score. With several verifiers: of the one that failed "
            "most often.",
            "At 1 the verifier never gives a score: the run pauses (health rule `no_verdicts`).",
            "down",
        ),
        Metric(
            "reward/<verifier>",
            "score, 0 to 1",
            "Mean score of one verifier, before its weight.",
            "It shows which term moves the reward.",
            "up",
        ),
    ),
)

VERDICT = MetricFamily(
    "verdict/",
    (
        Metric(
            "verdict/seconds/<verifier>",
            "s",
            "Time of one verifier: the sum over all verdicts that worker processes or services gave. They work in "
            "parallel, so that the step can take less.",
            "It should be small beside `perf/rollout_seconds` times the number of workers.",
            "down",
        ),
        Metric(
            "verdict/failures/<verifier>",
            "completions",
            "Scores that one verifier failed to give. `on_failure` of the verifier decides what follows.",
            "Any value above 0 needs attention: look for the verifier in the log.",
            "down",
        ),
        Metric(
            "verdict/cached/<verifier>",
            "completions",
            "Verdicts of one verifier that were known, because it had judged equal content before in the run.",
            "It rises as completions become alike.",
        ),
        Metric(
            "verdict/tokens/<verifier>",
            "tokens",
            "Tokens of the model that judged, prompts and answers, as its endpoint counts them.",
            "It falls as completions become alike, since equal content is judged once.",
            "down",
        ),
        Metric(
            "verdict/refusals/<verifier>",
            "completions",
            "Completions that the model refused to judge. Each counts in `verdict/failures` too.",
            "Any value above 0 needs attention: change the messages to the judge, or the model.",
            "down",
        ),
        Metric(
            "verdict/dropped_groups",
            "groups",
            "Groups that left the step because a verifier with `on_failure: drop_group` gave no verdict.",
            "Any value above 0 needs attention: the step learned from fewer groups, or sampled others.",
            "down",
        ),
    ),
    "Verifiers that find all verdicts of a step at once, from plain text, have no such metrics.",
)

EXPLORATION = MetricFamily(
    "exploration/",
    (
        Metric(
            "exploration/entropy",
            "nats/token",
            "Policy entropy over rollout tokens.",
            "Look for a slow fall. A drop towards 0 is entropy collapse: the policy no longer explores. A rise with "
            "falling accuracy is noise.",
            label="entropy",
        ),
        Metric(
            "exploration/entropy_top20",
            "nats/token",
            "Policy entropy over the 20 % of rollout tokens with the highest entropy (arXiv 2506.01939).",
            "It falls first if completions become alike.",
        ),
        Metric(
            "exploration/entropy_published",
            "nats/token",
            "Policy entropy over rollout and expert tokens together, as the code of the CalibRL paper logs it.",
            "Only for comparison with the paper's curves: expert tokens that the policy finds unlikely raise it.",
        ),
        Metric(
            "exploration/pass_at_k",
            "share",
            "Share of prompts that at least one rollout solves (pass@k).",
            "It rises with learning. The gap to accuracy is the headroom for RL.",
            "up",
        ),
        Metric(
            "exploration/distinct_answers",
            "answers/group",
            "Different answers per group. Equal values, such as 1/2 and 0.5, are one answer; a missing answer is none.",
            "It falls towards 1 if groups agree, on right or wrong answers.",
        ),
        Metric(
            "exploration/common_wrong_share",
            "share of wrong completions",
            "Share of wrong completions with the most common wrong answer of their group. Only groups with at least "
            "two wrong completions count.",
            "A rise: the policy settles on one mistake, and majority votes will repeat it.",
            "down",
        ),
        Metric(
            "exploration/groups_none",
            "share of groups",
            "Share of groups without a correct rollout.",
            "Near 1 the prompts are too hard: warm up with SFT first.",
            "down",
        ),
        Metric(
            "exploration/groups_some",
            "share of groups",
            "Share of mixed groups: some rollouts are correct, some are wrong.",
            "Only mixed groups carry a learning signal about answers.",
        ),
        Metric(
            "exploration/groups_all",
            "share of groups",
            "Share of groups with correct rollouts only.",
            "Near 1 the prompts are too easy.",
        ),
        Metric(
            "exploration/active_groups",
            "share of groups",
            "Share of groups with a non-zero advantage: their rewards differ, if only in the format.",
            "Near 0 the policy learns nothing.",
        ),
        Metric(
            "exploration/solved_then_lost",
            "share of prompts",
            "Forgetting rate: of the prompts solved at their last visit, the share that no rollout solves now. "
            "Reported from the second epoch on.",
            "It should stay low. A rise is forgetting.",
            "down",
        ),
        Metric(
            "exploration/logprob_advantage_cov",
            "nats × reward",
            "Covariance of log-probability and advantage over rollout tokens, Cov(log π, A) (arXiv 2505.22617).",
            "Above 0 the update makes likely tokens more likely, and entropy is about to fall: the higher the value, "
            "the faster.",
        ),
        Metric(
            "exploration/sampled_prompts",
            "prompts",
            "Prompts sampled to fill the step. Only with dynamic sampling.",
            "Far above `prompts_per_step`: in most groups all rollouts are correct, or all are wrong.",
        ),
    ),
)

SAMPLED = MetricFamily(
    "sampled/",
    (
        Metric(
            "sampled/reward/mean",
            "reward",
            "`reward/mean` over all sampled groups.",
            "It should rise and then level off.",
            "up",
        ),
        Metric("sampled/reward/std", "reward", "`reward/std` over all sampled groups.", "Near 0 little is learned."),
        Metric(
            "sampled/reward/answer_accuracy",
            "share",
            "`reward/answer_accuracy` over all sampled groups.",
            "It should rise. The accuracy of the kept groups cannot: they are mixed by selection.",
            "up",
        ),
        Metric(
            "sampled/reward/strict_accuracy",
            "share",
            "`reward/strict_accuracy` over all sampled groups.",
            "It should rise. The accuracy of the kept groups cannot: they are mixed by selection.",
            "up",
        ),
        Metric(
            "sampled/reward/verifier_failure_share",
            "share",
            "`reward/verifier_failure_share` over all sampled groups.",
            "At 1 the verifier never gives a score.",
            "down",
        ),
        Metric(
            "sampled/exploration/entropy",
            "nats/token",
            "`exploration/entropy` over all sampled groups.",
            "Look for a slow fall.",
        ),
        Metric(
            "sampled/exploration/active_groups",
            "share of groups",
            "`exploration/active_groups` over all sampled groups.",
            "Near 0 hardly any prompt carries a learning signal.",
        ),
        Metric(
            "sampled/length/truncated_share",
            "share",
            "`length/truncated_share` over all sampled groups.",
            "More than a few percent: raise the limit, or find out why completions ramble.",
            "down",
        ),
    ),
    "Only with dynamic sampling (`dapo`): the metrics of the same name over all sampled groups, also those that were "
    "replaced. The health rules read these metrics if they are present.",
)

RARENESS = MetricFamily(
    "rareness/",
    (
        Metric(
            "rareness/mean",
            "reward",
            "Mean rareness weight |A|: the weight of guidance for a rollout, by how rare its outcome is in its group.",
            "It falls as groups agree. At 0 nothing is learned.",
            label="rareness weight",
        ),
        Metric(
            "rareness/correct",
            "reward",
            "Mean rareness weight over correct rollouts.",
            "High while a correct answer is the exception.",
        ),
        Metric(
            "rareness/wrong",
            "reward",
            "Mean rareness weight over wrong rollouts.",
            "It crosses `rareness/correct` if half of the answers are correct.",
        ),
    ),
)

LENGTH = MetricFamily(
    "length/",
    (
        Metric(
            "length/mean",
            "tokens",
            "Mean length of a completion, with its stop token. With `sft`: of an expert.",
            "Growth without accuracy is rambling. A sudden drop often comes with entropy collapse.",
        ),
        Metric("length/max", "tokens", "Length of the longest completion."),
        Metric(
            "length/truncated_share",
            "share",
            "Truncation rate: share of completions cut at `rollout.max_completion_tokens`.",
            "More than a few percent: raise the limit, or find out why completions ramble.",
            "down",
        ),
    ),
)
