"""Error rates of verifiers: intervals and the accuracy that follows, by hand."""

import pytest

from calibrl.schemas import Rate
from jobs.insight.trust import corrected, rate


def test_a_rate_has_its_wilson_interval() -> None:
    # 2 of 8: z^2 / n = 0.4802. Middle (0.25 + 0.2401) / 1.4802 = 0.3311; half 1.96 sqrt(0.1875 / 8 + 0.4802 / 32)
    # / 1.4802 = 0.2596.
    found = rate([True, True, *[False] * 6])
    assert found is not None
    assert (found.value, found.count) == (0.25, 8)
    assert [found.low, found.high] == pytest.approx([0.0715, 0.5907], abs=1e-4)
    none_wrong = rate([False] * 10)
    assert none_wrong is not None
    assert (none_wrong.value, none_wrong.low) == (0.0, 0.0)
    assert none_wrong.high == pytest.approx(0.2775, abs=1e-4)  # 0.3841 / 1.3841
    assert rate([]) is None


def test_the_corrected_accuracy_combines_both_rates() -> None:
    # 0.6 * (1 - 0.2) + 0.4 * 0.1 = 0.52. Below: hypot(0.6 * 0.1, 0.4 * 0.05) = 0.0632; above: hypot(0.6 * 0.05,
    # 0.4 * 0.2) = 0.0854.
    passes, failures = Rate(value=0.2, low=0.15, high=0.3, count=50), Rate(value=0.1, low=0.05, high=0.3, count=20)
    found = corrected(0.6, passes, failures)
    assert found is not None
    assert found.value == pytest.approx(0.52)
    assert found.low == pytest.approx(0.52 - 0.0632, abs=1e-4)
    assert found.high == pytest.approx(0.52 + 0.0854, abs=1e-4)
    assert found.count == 70


def test_a_missing_rate_matters_only_if_there_are_such_completions() -> None:
    half = Rate(value=0.5, low=0.4, high=0.6, count=10)
    assert corrected(0.5, half, None) is None
    assert corrected(0.5, None, half) is None
    alone = corrected(1.0, half, None)
    assert alone is not None
    assert alone.value == 0.5
