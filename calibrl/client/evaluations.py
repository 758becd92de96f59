"""Results of evaluations and audits, comparison of models, and replay of stored completions."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx

from calibrl.client.connection import Connection, JobId, checked, job_path
from calibrl.schemas import Audit, Bisection, Comparison, Evaluation, Page, Replay, SplitAccuracies, WhatIf

TIMEOUT = httpx.Timeout(150.0, connect=3.0)  # longer than the service takes at most
Compared = JobId | tuple[JobId, int]  # an evaluation, or one of its models by its place in the spec


class EvaluationRequests(Connection):
    """Results of evaluations and audits, comparison of models, and replay of stored completions."""

    def evaluation(self, id: JobId) -> Evaluation:
        """Return the results of an evaluation. Refused (409) until it has ended."""
        return self._get(Evaluation, job_path(id, "evaluation"))

    def accuracies(self, id: JobId, *, split: str | None = None) -> list[SplitAccuracies]:
        """Return the accuracy of each prompt, per model and dataset of an evaluation; `split`: of this dataset only."""
        return self._get(Page[SplitAccuracies], job_path(id, "accuracies"), split=split).data

    def expert_audit(self, id: JobId) -> Audit:
        """Return the result of an audit of experts. Refused (409) until it has ended."""
        return self._get(Audit, job_path(id, "audit"))

    def what_if_result(self, id: JobId) -> WhatIf:
        """Return the result of a what-if. Refused (409) until it has ended."""
        return self._get(WhatIf, job_path(id, "what-if"))

    def bisection(self, id: JobId) -> Bisection:
        """Return the result of a bisection. Refused (409) until it has ended."""
        return self._get(Bisection, job_path(id, "bisection"))

    def compare_evaluations(self, *models: Compared, split: str | None = None, seed: int = 0) -> list[Comparison]:
        """Compare models over the same prompts, on one dataset or on all that they share; `seed` is the bootstrap's.

        Each is an evaluation's id, which means all its models, or `(id, model_index)`. Evaluations of other prompts are
        refused (409).
        """
        jobs = ",".join(str(one) if isinstance(one, UUID | str) else f"{one[0]}:{one[1]}" for one in models)
        params = {"jobs": jobs, "seed": seed} | ({} if split is None else {"split": split})
        answer = self._once("GET", "/v1/evaluations/compare", params=params, timeout=TIMEOUT)
        return self._parsed(Page[Comparison], checked(answer)).data

    def replay(
        self,
        id: JobId,
        rewards: Sequence[Mapping[str, Any]],
        *,
        first_step: int = 0,
        last_step: int | None = None,
        limit: int = 1000,
    ) -> Replay:
        """Score a training's stored completions again with other verifiers; nothing of the job changes.

        The service scores for a minute at most: `stopped` says why it has not come to the last one.
        """
        payload = {"rewards": [*rewards], "first_step": first_step, "last_step": last_step, "limit": limit}
        return self._send("POST", Replay, job_path(id, "replay"), payload, timeout=TIMEOUT)
