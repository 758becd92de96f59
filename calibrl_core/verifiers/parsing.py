"""Truths that `math` reads as expressions and cannot parse: it compares them sign by sign only."""

from collections.abc import Iterable

from calibrl_core.verifiers.explain import truth_kind
from calibrl_core.verifiers.math import with_itself
from calibrl_core.verifiers.pool import VerdictRequest, WorkerPool


def unparsed(truths: Iterable[str], pool: WorkerPool) -> set[str]:
    """Return the truths that are no other kind than an expression, and are not parsed.

    Args:
        pool: worker processes of one verifier, `math`. A truth that takes them too long counts as parsed.

    Raises:
        RuntimeError: worker processes cannot be started.
    """
    expressions = (truth for truth in truths if truth_kind(truth) == "expression")
    asked = {truth: VerdictRequest(0, *with_itself(truth)[:2]) for truth in expressions}
    found = pool.judge(asked.values()) if asked else {}
    return {truth for truth, request in asked.items() if found[request].failure is None and found[request].value < 0.5}
