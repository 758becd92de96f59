"""Audit of experts: per row, whether its expert helps CalibRL with a given policy.

    python -m calibrl_core.audit config.json --run-dir DIR

Each row with an expert gets its log-likelihood under the policy, the gaps of the policy's completions to it, the
verdicts of the rewards, the pass rate of the policy, and from these a verdict: use, rewrite or drop. With `rewrite` the
policy restates experts that are far from it. Reports one `progress` event per batch. The result is an `Audit`
(`calibrl_core.auditing.facts`).

All rows are stored in DIR/audit.jsonl, batch by batch. An audit that was stopped or killed continues behind its last
batch there, with the result that it would have had without the stop.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import Any

import calibrl_core.trainer_extra  # noqa: F401

# isort: split
from calibrl_core import data
from calibrl_core.auditing.audit_file import AuditFile, StoredRow
from calibrl_core.auditing.auditor import AuditedRows, Auditor
from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.auditing.summary import AuditSummary
from calibrl_core.data.row_cache import row_cache
from calibrl_core.data.schema import DataError, Example
from calibrl_core.data.views import Selected
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.evaluation.accuracy import batch_size
from calibrl_core.report import Report
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.run.frozen_policy import NamedRows, load_frozen
from calibrl_core.run.identity import model_digest
from calibrl_core.run.process import run_process
from calibrl_core.verifiers.base import read_truth
from calibrl_core.verifiers.scorer import NO_SERVICES, Scorer, check_needed, check_verdicts
from calibrl_core.verifiers.services import Services

AUDIT_FILE = "audit.jsonl"
_SAMPLES, _RESTATEMENTS = 0, 1  # in the seed, beside that of the run: both draw other random numbers


def audit(
    config: AuditConfig,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
    services: Services = NO_SERVICES,
) -> dict[str, Any]:
    """Audit until the end or until `should_stop()`; return the fields of the `finish` event. A stopped audit continues
    the next time.

    Raises:
        DataError: rows are invalid, or none has an expert.
        ModelError: the model cannot be used as configured.
        NoVerdictError: a verifier gave no verdict on any text of the first batch, or none that its `on_failure: stop`
            requires.
        PluginError: a verifier is missing or cannot be loaded.
        RewardServiceError: a reward names a service that is not in `services`.
        OSError: files.
        torch.OutOfMemoryError: memory.
    """
    with ExitStack() as closing:
        scorer = closing.enter_context(Scorer(config.rewards, sandbox=config.sandbox, services=services))
        return _Audit(config, report, scorer, ranks).run(closing, should_stop)


class _Audit:
    def __init__(self, config: AuditConfig, report: Report, scorer: Scorer, ranks: Ranks) -> None:
        self.config, self.report, self.scorer, self.ranks = config, report, scorer, ranks
        self.every = data.load(config.data, cache=row_cache(report), answers=read_truth(config.rewards))
        self.places = [place for place, example in enumerate(self.every) if example.expert]
        if not self.places:
            raise DataError(
                "data: no row has an expert, and an audit needs experts: add them, or name their column in "
                "data.columns.expert"
            )
        self.examples = Selected(self.every, self.places)
        self.batch = batch_size(config.rollout.group_size)
        self.settings = self._settings()
        self.file: AuditFile | None = None
        self.summary = AuditSummary(config, len(self.every) - len(self.places))
        if ranks.first:
            self.file = AuditFile(report.run_dir / AUDIT_FILE, self.settings, self.examples, self.batch)
            for row in self.file.rows():
                self.summary.add(row)
        self.done = ranks.from_first(self.file.kept if self.file else 0)  # rows

    def _settings(self) -> str:
        """Return a digest of all that a row depends on, besides its example."""
        names = {"algorithm", "rewards", "prompts", "rollout", "max_nll", "rewrite", "precision", "seed"}
        weights = model_digest(self.config.model) or self.config.model.model_dump(mode="json")
        parts = [self.config.model_dump(mode="json", include=names), self.scorer.versions, weights]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def batches(self) -> int:
        """Number of batches that are done."""
        return -(-self.done // self.batch)

    def run(self, closing: ExitStack, should_stop: Callable[[], bool]) -> dict[str, Any]:
        total = -(-len(self.examples) // self.batch)
        self.report.emit("start", step=self.batches, steps_total=total, versions=self.scorer.versions)
        auditor = self._load(closing) if self.done < len(self.examples) else None
        while auditor and self.done < len(self.examples):
            self._next_batch(auditor)
            self.report.emit("progress", step=self.batches, steps_total=total)
            if self.ranks.any_process(should_stop()):
                return {"status": "stopped", "step": self.batches, "result": {}}
        result = self.summary.result().model_dump(mode="json") if self.ranks.first else {}
        return {"status": "succeeded", "step": self.batches, "result": result}

    def _load(self, closing: ExitStack) -> Auditor:
        rows = [NamedRows("data", self.config.data, self.every)]
        policy, engine = load_frozen(self.config, self.config.model, 0, rows, self.report, self.ranks, closing)
        return Auditor(self.config, self.settings, policy, engine, self.scorer)

    def _next_batch(self, auditor: Auditor) -> None:
        """Audit the next batch. The processes share its rows, and all get the result."""
        start, end = self.done, min(self.done + self.batch, len(self.examples))
        examples = [self.examples[place] for place in range(start, end)]
        mine = self.ranks.my_slice(len(examples))
        numbers = [self.places[start + place] + 1 for place in mine]
        own = AuditedRows([], [])
        if mine:
            request = self._request(_SAMPLES, start, mine.start)
            own = auditor.audit(examples[mine.start : mine.stop], numbers, request)
        parts = self.ranks.gather_everywhere(own)
        scores = [score for part in parts for score in part.scores]
        check_needed([self.scorer.stop_reason(scores)])
        if start == 0:
            check_verdicts(scores)
        rows = [row for part in parts for row in part.rows]
        if self.config.rewrite:
            rows = self._restated(auditor, examples, rows, start)
        if self.file:
            self.file.append(rows)
        for row in rows:
            self.summary.add(row)
        self.done = end

    def _restated(
        self, auditor: Auditor, examples: Sequence[Example], rows: list[StoredRow], start: int
    ) -> list[StoredRow]:
        """Return the rows of a batch, those with the verdict rewrite with their restatements."""
        far = [place for place, row in enumerate(rows) if row.verdict == "rewrite"]
        mine = self.ranks.my_slice(len(far))
        places = [far[index] for index in mine]
        own: list[StoredRow] = []
        if places:
            request = self._request(_RESTATEMENTS, start, mine.start)
            own = auditor.restate([examples[place] for place in places], [rows[place] for place in places], request)
        changed = [row for part in self.ranks.gather_everywhere(own) for row in part]
        new = dict(zip(far, changed, strict=True))
        return [new.get(place, row) for place, row in enumerate(rows)]

    def _request(self, kind: int, start: int, first: int) -> SamplingRequest:
        rollout = self.config.rollout
        return SamplingRequest(
            group_size=rollout.group_size,
            temperature=rollout.temperature,
            max_tokens=rollout.max_completion_tokens,
            sampling=rollout,
            seed=[self.config.seed, kind, start],
            first_row=first * rollout.group_size,
        )


def main() -> None:
    """Run the command that the module's docstring describes."""
    run_process(AuditConfig, audit)


if __name__ == "__main__":
    main()
