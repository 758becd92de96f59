"""Content of an audit of experts: rows with their verdicts, and the summary of the data."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from calibrl_core.metrics.expert import Quadrant

ExpertVerdict = Literal["use", "rewrite", "drop"]


class _AuditFacts(BaseModel):
    model_config = ConfigDict(frozen=True)


class AuditRow(_AuditFacts):
    """A row with an expert, and the verdict on it."""

    row: int = Field(description="Number of the row in its source, counted from 1.")
    prompt_id: str
    data_source: str | None
    verdict: ExpertVerdict
    reasons: list[str] = Field(description="Reasons of the verdict, each in words.")
    tokens: int = Field(description="Number of tokens of the whole expert, with the end of its turn.")
    nll: float = Field(
        description="Negative log-likelihood of the expert under the policy in nats, without tokens that are cut."
    )
    nll_per_token: float = Field(description="The same per token.")
    follows_format: bool = Field(description="True: the expert has the form that the reward format requires.")
    passed: bool = Field(description="True: all rewards that judge the answer accept the expert.")
    pass_rate: float = Field(description="Share of the policy's completions that passed (0 to 1).")
    active: bool = Field(description="True: the rewards of the completions differ, so that they have advantages.")
    gap_mean: float | None = Field(description="Mean gap of the completions' tokens in nats. None: no token has a gap.")
    quadrants: dict[Quadrant, int] = Field(description="Number of tokens with a gap by quadrant.")
    rewritten_nll_per_token: float | None = Field(
        None, description="Negative log-likelihood of the restated expert in nats per token. None: not rewritten."
    )


class AuditHistogram(_AuditFacts):
    """Distribution of values in nats. Outliers count in the end bins."""

    edges: list[float]
    counts: list[int] = Field(description="One count fewer than edges.")


class Audit(_AuditFacts):
    """Summary of an audit of experts, with its worst rows."""

    rows: int = Field(description="Number of rows with an expert, which were audited.")
    without_expert: int = Field(description="Number of other rows.")
    verdicts: dict[ExpertVerdict, int] = Field(description="Number of audited rows by verdict.")
    rewritten: int = Field(description="Number of rows with a restated expert.")
    passed: int = Field(description="Number of experts that all rewards that judge the answer accept.")
    in_format: int = Field(description="Number of experts in the form that the reward format requires.")
    cut: int = Field(description="Number of experts with more tokens than rollout.max_completion_tokens.")
    nll_per_token: float = Field(description="Negative log-likelihood of all experts in nats per token.")
    pass_rate: float = Field(description="Mean pass rate of the policy over the rows (0 to 1).")
    active_groups: float = Field(description="Share of the rows whose completions have different rewards (0 to 1).")
    gap_mean: float | None = Field(description="Mean gap over all tokens that have one, in nats. None: none has.")
    quadrants: dict[Quadrant, float] = Field(
        description="Expected share of each quadrant in the tokens that have a gap (0 to 1). Empty: none has."
    )
    nll_histogram: AuditHistogram = Field(description="Negative log-likelihood per token, over the experts.")
    gap_histogram: AuditHistogram = Field(description="Gap, over the tokens of the completions.")
    conclusion: str = Field(description="Effect of guidance on this data compared with GRPO, with figures.")
    worst: list[AuditRow] = Field(description="The worst rows: drop, then rewrite, then use, the least likely first.")
