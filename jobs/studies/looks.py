"""Looks before the last seed: arms that are worse than the baseline beyond the group-sequential bound are stopped."""

from statistics import NormalDist

from calibrl.schemas.studies import StudySpec
from calibrl_core.evaluation.group_sequential import bounds
from calibrl_core.evaluation.study_statistics import arm_difference
from jobs.studies.measurements import Measurements, evaluated, pairs
from jobs.studies.situation import Situation

NORMAL = NormalDist()


def arms_to_stop(measurements: Measurements, situation: Situation, look: int) -> list[str]:
    """Return the arms that are worse than the baseline beyond the bound, after the first `look` seeds.

    Raises:
        Conflict: accuracies cannot be read or compared.
    """
    study = situation.study
    assert study.stop is not None
    evaluations = evaluated(situation.expansion, situation.known)
    split = measurements.primary(study, evaluations)
    compared = pairs(study, situation.expansion)
    if not compared:
        return []
    limit = look_bounds(study, (1 - study.confidence) / len(compared))[study.stop.after_seeds.index(look)]
    stopped = []
    for baseline, arm in compared:
        seeds = evaluations.common_seeds(baseline, arm, study.seeds[:look])
        if arm in situation.stopped or split is None or len(seeds) < 2:
            continue
        rows = measurements.paired(evaluations, baseline, arm, seeds, split)
        if len(rows[0][0]) < 2:  # prompts
            continue
        found = arm_difference(*rows)
        if found.difference < 0 and NORMAL.inv_cdf(1 - found.p_value / 2) > limit:
            stopped.append(arm)
    return stopped


def look_bounds(study: StudySpec, error: float) -> list[float]:
    """Return the bound of the test statistic at each look and after the last seed. `error`: two-sided."""
    looks = (*(study.stop.after_seeds if study.stop else ()), len(study.seeds))
    return bounds([seeds / len(study.seeds) for seeds in looks], error / 2)


def final_level(study: StudySpec, error: float) -> float:
    """Return the largest p-value after the last seed that rejects one hypothesis with this error over all looks."""
    return error if study.stop is None else 2 * (1 - NORMAL.cdf(look_bounds(study, error)[-1]))
