"""Evaluation: every model on every dataset, sampled and greedy, with intervals.

    python -m calibrl_core.evaluate config.json --run-dir DIR

Reports one `progress` event per batch, the `accuracies` of the prompts per model and dataset, and a result at the end.
The result has `rollout`, the settings of sampling, and one entry per model and dataset:
`{model, model_index, split, prompts, samples, metrics, sources}`, and one comparison for every two models on a dataset:
`{split, first, second, difference, low, high, distinguishable}`, the paired difference of sampled accuracy with its
95 % interval. `metrics` are those of `calibrl_core.evaluation.accuracy.summarise`, of the greedy completions as
`greedy_...`, and with changed images as `accuracy_<change>`. `sources` holds `{prompts, metrics}` per `data_source` of
the examples.

All answers are stored in DIR/answers.jsonl, batch by batch. An evaluation that was stopped or killed continues behind
its last batch there, with the results that it would have had without the stop.
"""

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from typing import Any

import calibrl_core.trainer_extra  # noqa: F401

# isort: split
import numpy as np
from numpy.typing import NDArray

from calibrl_core.config import BuiltinModel, EvaluateConfig, ModelSource
from calibrl_core.data.changed_images import ChangedImages
from calibrl_core.data.row_cache import row_cache
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.evaluation.accuracy import (
    Answers,
    accuracy_with_change,
    answer_batches,
    batch_size,
    concatenate,
    summarise,
)
from calibrl_core.evaluation.bootstrap import paired_differences
from calibrl_core.evaluation.stored_answers import Expected, How, Part, StoredAnswers, prompt_digest
from calibrl_core.report import Report
from calibrl_core.rollout.base import RolloutEngine, SamplingRequest
from calibrl_core.run.answer_check import answer_faults, answers_warning
from calibrl_core.run.frozen_policy import NamedRows, load_frozen
from calibrl_core.run.identity import data_digest, model_digest
from calibrl_core.run.process import run_process
from calibrl_core.run.row_check import all_results
from calibrl_core.run.sources import read_source
from calibrl_core.run.surroundings import run_record
from calibrl_core.verifiers.base import answer_form, read_truth
from calibrl_core.verifiers.scorer import NO_SERVICES, Scorer, check_needed, check_verdicts
from calibrl_core.verifiers.services import Services

ANSWERS_FILE = "answers.jsonl"
GREEDY = ("accuracy", "strict_accuracy", "format_rate", "length_mean", "truncated_share")  # others need samples


class _Stopped(Exception):
    """Raised between two batches if the run must stop."""


def evaluate(
    config: EvaluateConfig,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
    services: Services = NO_SERVICES,
) -> dict[str, Any]:
    """Evaluate until the end or until `should_stop()`; return the fields of the `finish` event. Metrics of model i
    (from 0) are reported as step i + 1, named `eval/<split>/name`. A stopped evaluation continues the next time.

    Raises:
        DataError: rows are invalid.
        ModelError: a model cannot be evaluated as configured.
        NoVerdictError: a verifier gave no verdict on any completion of a model and dataset, or none that its
            `on_failure: stop` requires.
        PluginError: a verifier is missing or cannot be loaded.
        RewardServiceError: a reward names a service that is not in `services`.
        OSError: files.
        torch.OutOfMemoryError: memory.
    """
    with Scorer(config.rewards, sandbox=config.sandbox, services=services) as scorer:
        evaluation = _Evaluation(config, report, scorer, should_stop, ranks)
        try:
            results = list(evaluation.run())
        except _Stopped:
            return {"status": "stopped", "step": evaluation.done, "result": {}}
    rollout = config.rollout.model_dump(mode="json")
    result = {"rollout": rollout, "results": results, "comparisons": evaluation.comparisons()}
    return {"status": "succeeded", "step": evaluation.done, "result": result}


class _Evaluation:
    def __init__(
        self,
        config: EvaluateConfig,
        report: Report,
        scorer: Scorer,
        should_stop: Callable[[], bool],
        ranks: Ranks,
    ) -> None:
        self.config, self.report, self.scorer, self.should_stop = config, report, scorer, should_stop
        self.ranks = ranks
        self.sets = self._load_sets()
        self.model_digests = [model_digest(source) for source in config.models]
        self.per_prompt: dict[str, list[NDArray[np.float64]]] = {name: [] for name, _ in self.sets}  # per model [N]
        self.parts = self._expected_parts()
        # The first process rewrites the file; the others read the same one.
        stored = ranks.from_first(StoredAnswers(report.run_dir / ANSWERS_FILE, self.parts) if ranks.first else None)
        assert stored is not None
        self.stored = stored
        self.done = self.stored.batches
        self.total = sum(-(-len(part.prompts) // part.batch) for part in self.parts.values())
        report.emit(
            "start",
            step=self.done,
            steps_total=self.total,
            versions=scorer.versions,
            record=run_record(self._digests()) if ranks.first else {},
        )
        self._warn_of_answers()

    def _digests(self) -> dict[str, str | None]:
        """Return the digests of the datasets and the models by field of the config."""
        data = {f"data.{name}": data_digest(examples) for name, examples in self.sets}
        return data | {f"models.{place}": digest for place, digest in enumerate(self.model_digests)}

    def _load_sets(self) -> list[tuple[str, Sequence[Example]]]:
        """Return the name and the examples of each dataset, and log its format and columns."""
        cache, answers = row_cache(self.report), read_truth(self.config.rewards)
        sources = self.config.data
        loads = (
            partial(read_source, f"data.{place}", source, cache, self._log, answers=answers)
            for place, source in enumerate(sources)
        )
        return [(source.name, rows) for source, rows in zip(sources, all_results(*loads), strict=True)]

    def _log(self, level: str, message: str) -> None:
        self.report.emit("log", level=level, message=message)

    def _warn_of_answers(self) -> None:
        """Report rows whose answer no completion can earn."""
        for place, (_, examples) in enumerate(self.sets):
            faults = answer_faults(self.config.rewards, examples) if self.ranks.first else {}
            if warning := answers_warning(f"data.{place}", examples, faults):
                self._log("warning", warning)

    def _expected_parts(self) -> dict[Part, Expected]:
        """Return all parts of the evaluation, in order."""
        rollout = self.config.rollout
        ways: dict[How, int] = {"sampled": batch_size(rollout.samples)}
        if rollout.greedy:
            ways["greedy"] = batch_size(1)
        ways |= dict.fromkeys(self.config.image_changes, batch_size(rollout.samples))
        prompts = {split: [prompt_digest(example) for example in examples] for split, examples in self.sets}
        return {
            Part(index, split, how): Expected(settings, digests, batch)
            for index, settings in enumerate(self._settings())
            for split, digests in prompts.items()
            for how, batch in ways.items()
        }

    def _settings(self) -> list[str]:
        """Return a digest of the settings of each model's answers and verdicts."""
        shared = self.config.model_dump(mode="json", include={"rewards", "prompts", "rollout", "precision", "seed"})
        pairs = zip(self.model_digests, self.config.models, strict=True)
        weights = [digest or source.model_dump(mode="json") for digest, source in pairs]
        parts = [json.dumps([shared, self.scorer.versions, one], sort_keys=True) for one in weights]
        return [sha256(part.encode()).hexdigest()[:16] for part in parts]

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield the results, model by model. Only one model is in memory."""
        for index in range(len(self.config.models)):
            yield from self._results(index)
            gc.collect()  # a model is part of reference cycles: without this call it stays while the next one loads

    def _results(self, index: int) -> list[dict[str, Any]]:
        values: dict[str, float] = {}
        results = []
        with ExitStack() as closing:
            engine = None if self._answered(index) else self._load(index, closing)
            for split, examples in self.sets:
                measured = self._measure(engine, index, split, examples)
                values |= {f"eval/{split}/{name}": value for name, value in measured["metrics"].items()}
                results.append(
                    {
                        "model": _label(self.config.models[index]),
                        "model_index": index,
                        "split": split,
                        "samples": self.config.rollout.samples,
                        **measured,
                    }
                )
        self.report.emit("metrics", step=index + 1, values=values)
        return results

    def _answered(self, index: int) -> bool:
        """Return if all answers of a model are stored."""
        return all(self.stored.complete(part) for part in self.parts if part.model_index == index)

    def _load(self, index: int, closing: ExitStack) -> RolloutEngine:
        rows = [
            NamedRows(f"models.{index}, data.{place}", source, examples)
            for place, (source, (_, examples)) in enumerate(zip(self.config.data, self.sets, strict=True))
        ]
        model = self.config.models[index]
        return load_frozen(self.config, model, index, rows, self.report, self.ranks, closing)[1]

    def comparisons(self) -> list[dict[str, Any]]:
        """Return the second model minus the first, for every two models, over the same prompts."""
        return [
            {"split": split, **asdict(difference), "distinguishable": difference.distinguishable}
            for split, accuracies in self.per_prompt.items()
            for difference in paired_differences(accuracies, self.config.seed)
        ]

    def _measure(
        self, engine: RolloutEngine | None, index: int, split: str, examples: Sequence[Example]
    ) -> dict[str, Any]:
        """Return `{prompts, metrics, sources}` of one model on one dataset. `engine`: None if all answers are
        stored.
        """
        sampled = self._answers(engine, Part(index, split, "sampled"), examples)
        check_verdicts([score for row in sampled.scores for score in row])
        self._report_accuracies(index, split, sampled)
        hows: list[How] = ["greedy"] if self.config.rollout.greedy else []
        hows += self.config.image_changes
        others = {how: self._answers(engine, Part(index, split, how), examples) for how in hows}
        by_source = {how: answers.by_source() for how, answers in others.items()}
        sources = {
            source: {
                "prompts": len(part.examples),
                "metrics": self._metrics(part, {how: own[source] for how, own in by_source.items()}),
            }
            for source, part in sampled.by_source().items()
        }
        return {"prompts": len(examples), "metrics": self._metrics(sampled, others), "sources": sources}

    def _metrics(self, sampled: Answers, others: Mapping[How, Answers]) -> dict[str, float]:
        form = answer_form(self.config.rewards)
        metrics = summarise(sampled, self.config.seed, form)
        for change in self.config.image_changes:
            metrics |= accuracy_with_change(change, others[change], self.config.seed)
        if greedy := others.get("greedy"):
            values = summarise(greedy, self.config.seed, form)
            names = [f"{name}{bound}" for name in GREEDY for bound in ("", "_low", "_high")]
            metrics |= {f"greedy_{name}": values[name] for name in names}
            metrics["verifier_failures"] += values["verifier_failures"]
        return metrics

    def _answers(self, engine: RolloutEngine | None, part: Part, examples: Sequence[Example]) -> Answers:
        """Return the answers of a part: those that are stored, and the others from the model."""
        rollout = self.config.rollout
        known = self.stored.read(part, examples)
        rest = examples[len(known.examples) :]
        if not rest:
            return known
        assert engine is not None
        samples, temperature = (1, 0.0) if part.how == "greedy" else (rollout.samples, rollout.temperature)
        shown = examples
        if part.how != "sampled" and part.how != "greedy":
            shown = ChangedImages(examples, part.how)
        request = SamplingRequest(
            group_size=samples,
            temperature=temperature,
            max_tokens=rollout.max_completion_tokens,
            sampling=rollout,
            seed=[self.config.seed],
            first_row=len(known.examples) * samples,
        )
        parts = [known] if known.examples else []
        for batch in answer_batches(engine, rest, self.scorer, request, self.ranks, shown[len(known.examples) :]):
            check_needed([self.scorer.stop_reason(score for row in batch.scores for score in row)])
            if self.ranks.first:
                self.stored.append(part, batch)
            parts.append(batch)
            self._advance()
        return concatenate(parts)

    def _advance(self) -> None:
        self.done += 1
        self.report.emit("progress", step=self.done, steps_total=self.total)
        if self.ranks.any_process(self.should_stop()):
            raise _Stopped

    def _report_accuracies(self, index: int, split: str, sampled: Answers) -> None:
        """Store and report the accuracy per prompt: other evaluations of the same prompts are paired with it."""
        accuracies = sampled.passed().mean(1)
        self.per_prompt[split].append(accuracies)
        prompts = [prompt_digest(example) for example in sampled.examples]
        values = accuracies.tolist()
        self.report.emit("accuracies", model_index=index, split=split, prompts=prompts, values=values)


def _label(source: ModelSource) -> str:
    return source.builtin if isinstance(source, BuiltinModel) else source.path


def main() -> None:
    """Run the command that the module's docstring describes."""
    run_process(EvaluateConfig, evaluate)


if __name__ == "__main__":
    main()
