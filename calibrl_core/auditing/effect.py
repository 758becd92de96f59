"""The effect of guidance on audited rows, in one sentence.

At the first update of a step the policy gradient of a token is proportional to -A, and that of guidance to -s |A|
guidance_coef x k, with s = +1 for a completion that passed and -1 for one that failed. k is 1 where guidance acts
fully, negative_slope elsewhere. If A has the sign of s, both together are the policy gradient times

    1 + guidance_coef x k

So CalibRL differs from GRPO only where k depends on the token. If all gaps of an outcome have one sign, k is constant.
"""

from collections.abc import Mapping

from calibrl_core.algorithms import CalibRL
from calibrl_core.metrics.expert import Quadrant

ONE_SIGN = 0.99  # share of tokens from which the gaps of an outcome count as of one sign
FULL: tuple[tuple[str, Quadrant, Quadrant], ...] = (  # outcome; quadrants with full and with damped guidance
    ("correct", "underconfident_correct", "confident_correct"),
    ("wrong", "overconfident_wrong", "humble_wrong"),
)


def effect_of_guidance(algorithm: CalibRL, tokens: Mapping[Quadrant, int], active_groups: float) -> str:
    """Return if CalibRL can differ from GRPO, with figures.

    Args:
        tokens: number of tokens with a gap by quadrant.
        active_groups: share of the groups with different rewards.
    """
    if not sum(tokens.values()):
        return "No token has a gap, so there is no guidance: CalibRL equals GRPO on these rows."
    if algorithm.guidance_coef == 0:
        return "guidance_coef is 0, so CalibRL equals GRPO."
    if not algorithm.rareness_weighting:
        return (
            "CalibRL differs from GRPO on these rows: with rareness_weighting: false guidance also moves tokens of "
            "completions without an advantage."
        )
    if active_groups == 0:
        return (
            "All completions of each prompt have equal rewards, so that |A| and guidance are 0: neither CalibRL nor "
            "GRPO learns from these rows."
        )
    shares = {
        outcome: tokens[full] / (tokens[full] + tokens[damped])
        for outcome, full, damped in FULL
        if tokens[full] + tokens[damped]
    }
    if all(share >= ONE_SIGN or share <= 1 - ONE_SIGN for share in shares.values()):
        parts = [_one_sign(algorithm, outcome, share) for outcome, share in shares.items()]
        return (
            "CalibRL can hardly differ from GRPO on these rows, because guidance only scales the policy gradient: "
            f"{'; '.join(parts)}."
        )
    parts = [_both_signs(algorithm, outcome, share) for outcome, share in shares.items()]
    return (
        f"CalibRL can differ from GRPO on these rows, in the {active_groups:.1%} of the groups with different "
        f"rewards: {'; '.join(parts)}."
    )


def _one_sign(algorithm: CalibRL, outcome: str, full: float) -> str:
    """Return the sentence's part on an outcome. full: share of its tokens with full guidance."""
    acts, share = full >= ONE_SIGN, max(full, 1 - full)
    name = "guidance_coef" if acts else "guidance_coef x negative_slope"
    sign = "0 or more" if acts == (outcome == "wrong") else "less than 0"
    strength = algorithm.guidance_coef * (1 if acts else algorithm.negative_slope)
    return (
        f"{share:.1%} of the tokens of {outcome} completions have a gap of {sign}, factor "
        f"{_factor(algorithm, strength)} (1 + {name})"
    )


def _both_signs(algorithm: CalibRL, outcome: str, full: float) -> str:
    strong, damped = algorithm.guidance_coef, algorithm.guidance_coef * algorithm.negative_slope
    return (
        f"{full:.1%} of the tokens of {outcome} completions have the factor {_factor(algorithm, strong)}, the others "
        f"{_factor(algorithm, damped)}"
    )


def _factor(algorithm: CalibRL, strength: float) -> str:
    # The gap of a sum moves with each token of the completion, and every token of the completion has it.
    per_token = algorithm.expert_gap == "sequence_sum"
    return f"1 + {strength:.4g} per token of the completion" if per_token else f"{1 + strength:.4g}"
