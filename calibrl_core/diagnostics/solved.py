"""exploration/solved_then_lost: prompts that the policy solved at their last visit, and does not solve now."""

from collections.abc import Iterable, Sequence

MAX_PROMPTS = 200_000  # prompts remembered; the least recent ones are dropped first


class SolvedPrompts:
    """Remembers which prompts were solved at their last visit. `state()` is JSON, for the checkpoint."""

    def __init__(self, state: Iterable[str] = (), limit: int = MAX_PROMPTS) -> None:
        self._solved = dict.fromkeys(state)  # ids, the most recent last
        self._limit = limit

    def observe(self, ids: Sequence[str], solved: Sequence[bool]) -> dict[str, float]:
        """Add the prompts of a step, of all processes (`solved`: any rollout passed).

        Returns the share of prompts that no rollout solves now, among those solved at their last visit. Empty if there
        are no such prompts, as in the whole first epoch.
        """
        before = [now for id, now in zip(ids, solved, strict=True) if id in self._solved]
        for id, now in zip(ids, solved, strict=True):
            self._solved.pop(id, None)
            if now:
                self._solved[id] = None
        while len(self._solved) > self._limit:
            del self._solved[next(iter(self._solved))]
        return {"exploration/solved_then_lost": before.count(False) / len(before)} if before else {}

    def state(self) -> list[str]:
        """Return the state to restore it from, as JSON."""
        return list(self._solved)
