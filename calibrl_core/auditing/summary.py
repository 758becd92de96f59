"""The summary of an audit: counts of verdicts, means, histograms, the quadrants to expect, and the worst rows."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from calibrl_core.auditing.audit_file import StoredRow
from calibrl_core.auditing.effect import effect_of_guidance
from calibrl_core.auditing.facts import Audit, AuditHistogram, AuditRow, ExpertVerdict
from calibrl_core.auditing.settings import AuditSettings
from calibrl_core.diagnostics.expert_mismatch import GAP_EDGES
from calibrl_core.metrics.expert import Quadrant

MOST_WORST = 200  # rows in the summary
NLL_EDGES = np.linspace(0.0, 16.0, 65)  # nats per token
HARM: dict[ExpertVerdict, int] = {"use": 0, "rewrite": 1, "drop": 2}


class AuditSummary:
    """Sums over rows; of the rows themselves only the worst ones are in memory."""

    def __init__(self, settings: AuditSettings, without_expert: int) -> None:
        self._settings, self._without_expert = settings, without_expert
        self._verdicts = Counter[ExpertVerdict]()
        self._counts = Counter[str]()
        self._nll = self._tokens = self._pass_rate = self._gaps = 0.0
        self._quadrants = Counter[Quadrant]()
        self._of_nll = np.zeros(len(NLL_EDGES) - 1, dtype=np.int64)
        self._of_gap = np.zeros(len(GAP_EDGES) - 1, dtype=np.int64)
        self._worst: list[tuple[int, float, int, AuditRow]] = []  # heap; the number of the row decides between equals

    def add(self, row: StoredRow) -> None:
        """Count a row."""
        limit = self._settings.rollout.max_completion_tokens
        self._verdicts[row.verdict] += 1
        self._counts["rows"] += 1
        for name in ("passed", "active", "follows_format"):
            self._counts[name] += getattr(row, name)
        self._counts["cut"] += row.tokens > limit
        self._counts["rewritten"] += row.rewrite is not None
        self._nll += row.nll
        self._tokens += min(row.tokens, limit)
        self._pass_rate += row.pass_rate
        self._gaps += (row.gap_mean or 0.0) * sum(row.quadrants.values())
        self._quadrants.update(row.quadrants)
        self._of_nll += np.histogram(np.clip(row.nll_per_token, NLL_EDGES[0], NLL_EDGES[-1]), NLL_EDGES)[0]
        self._of_gap += np.array(row.gap_counts, dtype=np.int64)
        shown = AuditRow.model_validate(row.model_dump(include={*AuditRow.model_fields}))
        entry = (HARM[row.verdict], row.nll_per_token, -row.row, shown)
        if len(self._worst) < MOST_WORST:
            heapq.heappush(self._worst, entry)
        else:
            heapq.heappushpop(self._worst, entry)

    def result(self) -> Audit:
        """Return the summary of the rows so far, at least one."""
        rows, tokens = self._counts["rows"], sum(self._quadrants.values())
        quadrants: tuple[Quadrant, ...] = get_args(Quadrant)
        verdicts: tuple[ExpertVerdict, ...] = get_args(ExpertVerdict)
        active = self._counts["active"] / rows
        return Audit(
            rows=rows,
            without_expert=self._without_expert,
            verdicts={name: self._verdicts[name] for name in verdicts},
            rewritten=self._counts["rewritten"],
            passed=self._counts["passed"],
            in_format=self._counts["follows_format"],
            cut=self._counts["cut"],
            nll_per_token=self._nll / self._tokens,
            pass_rate=self._pass_rate / rows,
            active_groups=active,
            gap_mean=self._gaps / tokens if tokens else None,
            quadrants={name: self._quadrants[name] / tokens for name in quadrants} if tokens else {},
            nll_histogram=_histogram(NLL_EDGES, self._of_nll),
            gap_histogram=_histogram(GAP_EDGES, self._of_gap),
            conclusion=effect_of_guidance(self._settings.algorithm, self._quadrants, active),
            worst=[row for *_, row in sorted(self._worst, key=lambda entry: entry[:3], reverse=True)],
        )


def _histogram(edges: NDArray[np.float64], counts: NDArray[np.int64]) -> AuditHistogram:
    return AuditHistogram(edges=edges.tolist(), counts=counts.tolist())
