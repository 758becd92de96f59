"""The result of an audit of experts, as the trainer reports it."""

from typing import Any

from calibrl.schemas import Audit, AuditHistogram, AuditRow

QUADRANTS: dict[Any, int] = {
    "confident_correct": 30,
    "underconfident_correct": 10,
    "overconfident_wrong": 50,
    "humble_wrong": 10,
}
REASONS = {
    "drop": "the reward math refuses the expert",
    "rewrite": "far from the policy: 3.50 nats per token, more than max_nll (2)",
    "use": "right, complete and near the policy: 0.75 nats per token",
}
CONCLUSION = "CalibRL can differ from GRPO on these rows, in the 50.0% of the groups with different rewards."


def audit_row(number: int, verdict: Any, nll_per_token: float, **changes: Any) -> AuditRow:
    fields: dict[str, Any] = {
        "row": number,
        "prompt_id": f"sums/{number}",
        "data_source": None,
        "verdict": verdict,
        "reasons": [REASONS[verdict]],
        "tokens": 1234,
        "nll": 1234 * nll_per_token,
        "nll_per_token": nll_per_token,
        "follows_format": True,
        "passed": verdict != "drop",
        "pass_rate": 0.25,
        "active": True,
        "gap_mean": 1.5,
        "quadrants": QUADRANTS,
    }
    return AuditRow(**fields | changes)


def audit_result(*worst: AuditRow) -> dict[str, Any]:
    """Return the result of an audit of four rows: one to drop, one to rewrite, two to use."""
    found = Audit(
        rows=4,
        without_expert=1,
        verdicts={"use": 2, "rewrite": 1, "drop": 1},
        rewritten=1,
        passed=3,
        in_format=4,
        cut=0,
        nll_per_token=1.875,
        pass_rate=0.25,
        active_groups=0.5,
        gap_mean=1.5,
        quadrants={name: count / 100 for name, count in QUADRANTS.items()},
        nll_histogram=AuditHistogram(edges=[0.0, 1.0, 2.0, 3.0, 4.0], counts=[2, 0, 0, 2]),
        gap_histogram=AuditHistogram(edges=[-2.0, 0.0, 2.0], counts=[20, 80]),
        conclusion=CONCLUSION,
        worst=[*worst]
        or [
            audit_row(3, "drop", 1.0),
            audit_row(2, "rewrite", 3.5, rewritten_nll_per_token=0.9, gap_mean=None),
            audit_row(1, "use", 0.75),
        ],
    )
    return found.model_dump(mode="json")
