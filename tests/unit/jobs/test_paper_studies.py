"""The studies in studies/: valid, and they share their runs."""

import pytest

from calibrl.studies.files import read_study
from calibrl.studies.results import read_results
from jobs.studies.expansion import DIGEST, Expansion, expand
from tests.support import ROOT

FILES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def studies() -> dict[str, Expansion]:
    return {path.stem: expand(read_study(path)) for path in FILES}


def test_the_studies_share_warm_ups_and_equal_arms(studies: dict[str, Expansion]) -> None:
    main = {job.digest for job in studies["paper_small"].jobs}
    ablations = studies["paper_small_ablations"]
    shared = [job for job in ablations.jobs if job.digest in main]
    assert {(job.part, job.arm) for job in shared} == {
        ("warm-up", None),
        *((part, arm) for part in ("training", "evaluation") for arm in ("grpo", "calibrl")),
    }
    assert len(shared) == 8 * (1 + 2 * 2)  # seeds x (warm-up, two jobs of two arms)
    rates = studies["paper_small_learning_rates"]
    assert {job.part for job in rates.jobs if job.digest in main} == {"warm-up"}


def test_each_arm_differs_from_the_baseline_in_what_its_name_says(studies: dict[str, Expansion]) -> None:
    arms = {arm.name: arm.changes for arm in studies["paper_small"].arms}
    assert {name: changes["algorithm"]["type"] for name, changes in arms.items() if changes} == {
        "calibrl": "calibrl",
        "calibrl-1": "calibrl",
        "calibrl-3": "calibrl",
        "shuffled-1": "calibrl",
        "sign-1": "calibrl",
        "grpo-entropy": "grpo",
        "luffy": "luffy",
    }
    assert arms["shuffled-1"]["algorithm"] == arms["calibrl-1"]["algorithm"] | {"expert_gap": "shuffled"}
    assert arms["sign-1"]["algorithm"] == arms["calibrl-1"]["algorithm"] | {"negative_slope": 1.0}


def test_each_kept_result_is_of_a_run_of_the_study(studies: dict[str, Expansion]) -> None:
    results = list(read_results(ROOT / "studies" / "results"))
    known = {job.digest for job in studies["paper_small"].jobs}
    assert {job.labels[DIGEST] for run in results for job in (run.training, run.evaluation)} <= known
    assert len(results) >= 3 * 8  # seeds x arms
