"""Statistics of studies, by numbers worked out by hand, published tables, and a simulation of the coverage."""

import math

import numpy as np
import pytest

from calibrl_core.evaluation import group_sequential as sequential
from calibrl_core.evaluation import study_statistics as statistics
from calibrl_core.evaluation.study_statistics import arm_difference, holm, holm_adjusted, needed, seed_difference

# Two seeds on three prompts: row means 0.2 and 0.4, column means 0.1, 0.3 and 0.5, and nothing else.
ADDITIVE = [[0.0, 0.2, 0.4], [0.2, 0.4, 0.6]]


@pytest.mark.parametrize(
    ("degrees", "limit"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (120, 1.980), (1e6, 1.960)]
)
def test_quantiles_of_student_s_t_are_those_of_the_table(degrees: float, limit: float) -> None:
    assert statistics.t_limit(0.05, degrees) == pytest.approx(limit, abs=6e-4)
    assert statistics.two_sided(limit, degrees) == pytest.approx(0.05, rel=2e-3)


def test_small_probabilities_of_student_s_t_are_exact() -> None:
    """One degree of freedom: Cauchy's distribution, 1 - 2 atan(t) / pi."""
    assert statistics.two_sided(1e6, 1) == pytest.approx(2 * math.atan(1e-6) / math.pi, rel=1e-9)


def test_an_interval_adds_the_widths_over_seeds_and_prompts() -> None:
    """Seed means 0.2, 0.4: variance 0.02, over 2 seeds 0.01, t(1) 12.706: 1.2706. Prompt means: variance 0.04, over 3
    prompts 0.01333, t(2) 4.3027: 0.4968. The square root of the sum of squares is 1.3643.
    """
    found = arm_difference(np.zeros((2, 3)), ADDITIVE)
    assert found.difference == pytest.approx(0.3)
    assert (found.variances.seeds, found.variances.prompts) == pytest.approx((0.02, 0.04))
    assert found.variances.rest == pytest.approx(0, abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * 1.3643, abs=1e-3)
    assert found.low < 0 < found.high
    back = arm_difference(ADDITIVE, np.zeros((2, 3)))
    assert (back.difference, back.p_value) == pytest.approx((-0.3, found.p_value))
    assert back.high - back.low == pytest.approx(found.high - found.low)


def test_the_p_value_is_the_error_whose_interval_ends_at_0() -> None:
    found = arm_difference(np.zeros((2, 3)), ADDITIVE)
    assert found.variances.half_width(2, 3, found.p_value) == pytest.approx(0.3, rel=1e-4)
    with_p = arm_difference(np.zeros((2, 3)), ADDITIVE, confidence=1 - found.p_value)
    assert with_p.high - with_p.low == pytest.approx(0.6, rel=1e-4)


def test_equal_differences_have_no_width_and_the_smallest_p_value() -> None:
    found = arm_difference(np.zeros((3, 4)), np.full((3, 4), 0.25))
    assert (found.difference, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.p_value == statistics.SMALLEST_P
    assert arm_difference(np.zeros((3, 4)), np.zeros((3, 4))).p_value == 1.0


def test_resamples_keep_the_prompts_of_all_seeds_together() -> None:
    """Only prompts differ: the variance of resampled means is that of one mean over 4 prompts, whatever the number of
    seeds: 0.25 / 4. Prompts drawn for each seed alone would give a tenth of it.
    """
    differences = np.tile([0.0, 1.0, 0.0, 1.0], (10, 1))
    assert statistics.resampled_means(differences, 0).var() == pytest.approx(0.0625, rel=0.1)
    assert statistics.resampled_means(differences, 1).mean() == pytest.approx(0.5, abs=0.02)


def test_values_per_seed_are_compared_by_student_s_paired_t() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt(3) = 0.05774, t(2) 4.3027: 0.2484."""
    found = seed_difference([0.5, 0.5, 0.5], [0.6, 0.7, 0.8])
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, -0.0484, 0.4484), abs=1e-4)
    assert found.p_value == pytest.approx(statistics.two_sided(0.2 / 0.057735, 2), rel=1e-4)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (5,)])
def test_fewer_than_two_seeds_or_prompts_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        arm_difference(np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match="same seeds and prompts"):
        arm_difference(np.zeros((3, 3)), np.zeros((3, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [(1, 0, 1), (0, 1, 1), (0, 0, 1), (0.3, 0.3, 1)], ids=str)
def test_intervals_cover_the_true_difference(seeds: int, spread: tuple[float, float, float]) -> None:
    """200 studies of 40 prompts: 95 % are covered with a standard deviation of 1.5 %."""
    rng = np.random.default_rng(1)
    of_seeds, of_prompts, rest = spread
    covered = 0
    for study in range(200):
        differences = rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_prompts, (1, 40))
        differences = differences + rng.normal(0.1, rest, (seeds, 40))
        found = arm_difference(np.zeros_like(differences), differences, seed=study)
        covered += found.low <= 0.1 <= found.high
    assert 0.91 <= covered / 200 <= 1


# ---- Several comparisons


def test_holm_rejects_step_by_step() -> None:
    """0.01 < 0.05 / 3, then 0.02 < 0.05 / 2, then 0.04 < 0.05. With 0.03 second, no further one is rejected."""
    assert holm([0.04, 0.01, 0.02], 0.05) == [True, True, True]
    assert holm([0.04, 0.01, 0.03], 0.05) == [False, True, False]
    assert holm([], 0.05) == []
    assert holm([0.01, 0.02], 0.05, nominal=lambda error: error / 2) == [True, True]
    assert holm([0.02, 0.01], 0.05, nominal=lambda error: error / 3) == [False, False]


def test_adjusted_p_values_ascend_and_end_at_1() -> None:
    assert holm_adjusted([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm_adjusted([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_needed_seeds_and_prompts_settle_a_difference() -> None:
    """Only seeds differ, by 0.1, and the difference is 0.1: t(S - 1) + 0.842 <= sqrt(S) first at 10 seeds, 2.262 +
    0.842 = 3.104 <= 3.162; at 9, 2.306 + 0.842 = 3.148 > 3. More prompts do not help.
    """
    found = seed_difference([0.0, 0.0, 0.0], [0.0, 0.1, 0.2])
    assert found.variances.seeds == pytest.approx(0.01)
    assert (found.variances.prompts, found.variances.rest) == (0.0, 0.0)
    assert needed(found) == statistics.Needed(10, None)


def test_needed_prompts_settle_a_difference_between_prompts() -> None:
    """Only prompts differ: +1 and -1 about 0.1, with variance 50 / 49. t + 0.842 is 2.805 for many prompts, and
    2.805^2 x 1.0204 / 0.01 = 803. More seeds do not help.
    """
    one = np.tile([1.1, -0.9], 25)
    found = arm_difference(np.zeros((2, 50)), np.stack([one, one]))
    assert found.difference == pytest.approx(0.1)
    result = needed(found)
    assert result.seeds is None
    assert result.prompts == pytest.approx(803, abs=4)
    assert needed(arm_difference(np.zeros((2, 2)), np.zeros((2, 2)))) == statistics.Needed(None, None)


# ---- Looks


def test_bounds_are_those_of_the_table_of_lan_and_demets() -> None:
    """Five looks, two-sided error 0.05, O'Brien and Fleming's spending: the table of ldbounds."""
    found = sequential.bounds([0.2, 0.4, 0.6, 0.8, 1.0], 0.025)
    assert found == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-3)
    assert sequential.bounds([1.0], 0.025) == pytest.approx([1.95996], abs=1e-4)


def test_original_bounds_of_o_brien_and_fleming_have_their_error() -> None:
    """Their table for five looks, two-sided error 0.05: 4.56, 3.23, 2.63, 2.28, 2.04."""
    fractions = [0.2, 0.4, 0.6, 0.8, 1.0]
    original = [2.0401 / math.sqrt(fraction) for fraction in fractions]
    assert original == pytest.approx([4.56, 3.23, 2.63, 2.28, 2.04], abs=6e-3)
    assert sum(sequential.crossing_probabilities(original, fractions)) == pytest.approx(0.025, abs=5e-5)


def test_the_error_is_spent_as_the_information_grows() -> None:
    found = sequential.crossing_probabilities(sequential.bounds([0.5, 0.75, 1.0], 0.025), [0.5, 0.75, 1.0])
    expected = [sequential.spent(fraction, 0.025) for fraction in (0.5, 0.75, 1.0)]
    assert np.cumsum(found) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] == pytest.approx(0.025)


@pytest.mark.slow
def test_a_look_rarely_stops_an_arm_that_is_not_worse() -> None:
    """300 studies of equal arms, with looks after 2 to 5 of 6 seeds: at most 0.025 are stopped, plus two standard
    deviations of 0.009.
    """
    rng = np.random.default_rng(0)
    limits = sequential.bounds([seeds / 6 for seeds in range(2, 7)], 0.025)
    stopped = 0
    for study in range(300):
        differences = rng.normal(0, 0.3, (6, 1)) + rng.normal(0, 0.3, (1, 40)) + rng.normal(0, 1, (6, 40))
        looks = [arm_difference(np.zeros((seeds, 40)), differences[:seeds], seed=study) for seeds in range(2, 6)]
        levels = [math.erfc(limit / math.sqrt(2)) for limit in limits]
        stopped += any(one.difference < 0 and one.p_value < level for one, level in zip(looks, levels, strict=False))
    assert stopped / 300 <= 0.043


@pytest.mark.parametrize("fractions", [[], [0.5, 0.5], [0.0, 1.0], [0.5, 1.1]])
def test_fractions_that_do_not_ascend_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="must ascend"):
        sequential.bounds(fractions, 0.025)
