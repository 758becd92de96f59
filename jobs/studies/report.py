"""Builds the report of a study from its jobs."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from calibrl.schemas.status import JobStatus
from calibrl.schemas.studies import StudySpec
from calibrl.schemas.study_reports import (
    Budget,
    BudgetComparison,
    MetricComparison,
    StudyArm,
    StudyComparison,
    StudyReport,
    StudyRun,
)
from calibrl_core.evaluation.study_statistics import arm_difference, holm, holm_adjusted, needed, seed_difference
from jobs.studies.curves import accuracy_at, common_budget
from jobs.studies.expansion import Expansion, StudyJob
from jobs.studies.looks import final_level
from jobs.studies.measurements import Evaluated, Measurements, Trained, evaluated, pairs
from jobs.studies.situation import Situation
from jobs.studies.state import slot_hours

TrainingOf = Callable[[UUID, Sequence[str]], Trained]  # of a training job, with the means of these metrics
BUDGETS: tuple[Budget, ...] = ("rollouts", "seconds")


def build_report(situation: Situation, measurements: Measurements, training_of: TrainingOf) -> StudyReport:
    """Return the report of the jobs that exist now.

    Args:
        training_of: returns the results of a training job.

    Raises:
        Conflict: accuracies are not stored, or evaluations had different prompts.
    """
    study, expansion = situation.study, situation.expansion
    evaluations = evaluated(expansion, situation.known)
    primary = measurements.primary(study, evaluations)
    splits = _splits(measurements, evaluations, primary)
    runs = ranked([_run(situation, measurements, training_of, job) for job in expansion.of("training")], primary)
    by_arm = {arm.name: [run for run in runs if run.arm == arm.name] for arm in expansion.arms}
    return StudyReport(
        name=study.name,
        primary=primary,
        baseline=study.baseline,
        confidence=study.confidence,
        bootstrap_seed=study.bootstrap_seed,
        splits=splits,
        arms=[
            StudyArm(
                name=arm.name,
                changes=arm.changes,
                seeds=[run.seed for run in by_arm[arm.name] if run.accuracies],
                accuracies={split: mean for split in splits if (mean := _mean(by_arm[arm.name], split)) is not None},
                mean_rank=_mean_rank(by_arm[arm.name]),
                slot_hours=sum(run.slot_hours for run in by_arm[arm.name]),
                stopped_after=situation.stopped.get(arm.name),
            )
            for arm in expansion.arms
        ],
        runs=runs,
        comparisons=[
            comparison
            for split in splits
            for comparison in compare_arms(study, expansion, evaluations, measurements, split)
        ],
        metrics=compare_metrics(study, expansion, by_arm),
        budgets=compare_budgets(study, expansion, by_arm),
        notes=situation.progress().notes,
    )


def _splits(measurements: Measurements, evaluations: Evaluated, primary: str | None) -> list[str]:
    found = [measurements.splits(job.id) for seeds in evaluations.jobs.values() for job in seeds.values()]
    names = list(dict.fromkeys(split for one in found for split in one))
    return sorted(names, key=lambda name: name != primary)


def _run(situation: Situation, measurements: Measurements, training_of: TrainingOf, training: StudyJob) -> StudyRun:
    known = situation.known
    (evaluation,) = situation.expansion.of("evaluation", arm=training.arm, seed=training.seed)
    trained, measured = known.get(training.digest), known.get(evaluation.digest)
    warm_up = known.get(training.needs) if training.needs else None
    found = measurements.splits(measured.id) if measured and measured.status is JobStatus.SUCCEEDED else {}
    begun = trained is not None and trained.step > 0
    results = training_of(trained.id, situation.study.metrics) if trained and begun else Trained([], {})
    assert training.arm is not None and training.seed is not None
    return StudyRun(
        arm=training.arm,
        seed=training.seed,
        digest=evaluation.digest,
        warm_up=warm_up and warm_up.id,
        training=trained and trained.id,
        training_status=trained and trained.status,
        evaluation=measured and measured.id,
        evaluation_status=measured and measured.status,
        recorded=trained is not None and trained.id in situation.recorded,
        accuracies={split: sum(one.values) / len(one.values) for split, one in found.items()},
        slot_hours=slot_hours([job for job in (trained, measured) if job is not None], datetime.now(UTC)),
        curve=results.curve,
        metrics=results.metrics,
    )


def ranked(runs: Sequence[StudyRun], primary: str | None) -> list[StudyRun]:
    """Return the runs with their ranks, for the seeds with which all arms are evaluated on the primary dataset."""
    by_seed: dict[int, list[StudyRun]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    ranks: dict[tuple[str, int], float] = {}
    for seed, group in by_seed.items():
        found = [run.accuracies.get(primary or "") for run in group]
        if any(value is None for value in found):
            continue
        values = [value for value in found if value is not None]
        for run, value in zip(group, values, strict=True):
            ranks[run.arm, seed] = sum(other > value for other in values) + (values.count(value) + 1) / 2
    return [run.model_copy(update={"rank": ranks.get((run.arm, run.seed))}) for run in runs]


def _mean_rank(runs: Sequence[StudyRun]) -> float | None:
    ranks = [run.rank for run in runs if run.rank is not None]
    return sum(ranks) / len(ranks) if ranks else None


def _mean(runs: Sequence[StudyRun], split: str) -> float | None:
    found = [run.accuracies[split] for run in runs if split in run.accuracies]
    return sum(found) / len(found) if found else None


def compare_arms(
    study: StudySpec, expansion: Expansion, evaluations: Evaluated, measurements: Measurements, split: str
) -> list[StudyComparison]:
    """Compare the pairs of arms of a study on a dataset, with Holm's correction over the pairs.

    Raises:
        Conflict: accuracies are not stored, or evaluations had different prompts.
    """
    rows: list[StudyComparison] = []
    for first, second in pairs(study, expansion):
        seeds = evaluations.common_seeds(first, second, study.seeds)
        row = StudyComparison(first=first, second=second, seeds=seeds, split=split, prompts=0, difference=None)
        rows_of = measurements.paired(evaluations, first, second, seeds, split) if len(seeds) >= 2 else None
        if rows_of is not None and len(rows_of[0][0]) >= 2:  # prompts
            before, after = rows_of
            found = arm_difference(before, after, confidence=study.confidence, seed=study.bootstrap_seed)
            more = needed(found, confidence=study.confidence)
            row = row.model_copy(
                update={
                    "prompts": found.prompts,
                    "difference": found.difference,
                    "low": found.low,
                    "high": found.high,
                    "p_value": found.p_value,
                    "needed_seeds": more.seeds,
                    "needed_prompts": more.prompts,
                }
            )
        rows.append(row)
    return _corrected(study, rows)


def _corrected(study: StudySpec, rows: Sequence[StudyComparison]) -> list[StudyComparison]:
    """Return comparisons with adjusted p-values and verdicts. Pairs without enough seeds take no part."""
    measured = [(place, row.p_value) for place, row in enumerate(rows) if row.p_value is not None]
    p_values = [p_value for _, p_value in measured]
    error = 1 - study.confidence
    rejected = holm(p_values, error, lambda error: final_level(study, error))
    changed = list(rows)
    for (place, _), adjusted, differs in zip(measured, holm_adjusted(p_values), rejected, strict=True):
        update = {"adjusted_p_value": adjusted, "distinguishable": differs}
        changed[place] = rows[place].model_copy(update=update)
    return changed


def compare_metrics(
    study: StudySpec, expansion: Expansion, runs: Mapping[str, Sequence[StudyRun]]
) -> list[MetricComparison]:
    """Compare the pairs of arms by the metrics of the study, paired by seed. A pair needs two seeds that have both."""
    rows = []
    for metric in study.metrics:
        for first, second in pairs(study, expansion):
            row = _by_metric(study, metric, first, second, runs)
            rows += [row] if row is not None else []
    return rows


def _by_metric(
    study: StudySpec, metric: str, first: str, second: str, runs: Mapping[str, Sequence[StudyRun]]
) -> MetricComparison | None:
    found = {
        arm: {run.seed: run.metrics[metric] for run in runs[arm] if metric in run.metrics} for arm in (first, second)
    }
    seeds = [seed for seed in study.seeds if seed in found[first] and seed in found[second]]
    if len(seeds) < 2:
        return None
    before, after = ([found[arm][seed] for seed in seeds] for arm in (first, second))
    difference = seed_difference(before, after, confidence=study.confidence)
    return MetricComparison(
        metric=metric,
        first=first,
        second=second,
        seeds=seeds,
        before=sum(before) / len(before),
        after=sum(after) / len(after),
        difference=difference.difference,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
    )


def compare_budgets(
    study: StudySpec, expansion: Expansion, runs: Mapping[str, Sequence[StudyRun]]
) -> list[BudgetComparison]:
    """Compare the pairs of arms at equal rollouts and at equal time, by the validations during training."""
    rows = []
    for budget in BUDGETS:
        for first, second in pairs(study, expansion):
            row = _at_equal_budget(study, budget, first, second, runs)
            rows += [row] if row is not None else []
    return rows


def _at_equal_budget(
    study: StudySpec, budget: Budget, first: str, second: str, runs: Mapping[str, Sequence[StudyRun]]
) -> BudgetComparison | None:
    """Return the comparison of two arms; None if their runs validated nothing within a common budget."""
    curves = {
        arm: {run.seed: run.curve for run in runs[arm] if run.accuracies and run.curve} for arm in (first, second)
    }
    seeds = [seed for seed in study.seeds if seed in curves[first] and seed in curves[second]]
    limit = common_budget((curves[arm][seed] for arm in (first, second) for seed in seeds), budget)
    if limit is None or len(seeds) < 2:
        return None
    values = [[accuracy_at(curves[arm][seed], budget, limit) for seed in seeds] for arm in (first, second)]
    before, after = ([value for value in row if value is not None] for row in values)
    if len(before) < len(seeds) or len(after) < len(seeds):
        return None
    found = seed_difference(before, after, confidence=study.confidence)
    return BudgetComparison(
        first=first,
        second=second,
        seeds=seeds,
        budget=budget,
        amount=limit,
        difference=found.difference,
        low=found.low,
        high=found.high,
        p_value=found.p_value,
    )
