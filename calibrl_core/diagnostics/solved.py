"""exploration/solved_then_lost: prompts that the policy could solve when it last met them, and now cannot."""

from collections.abc import Iterable, Sequence

MOST = 200_000  # prompts remembered; those met longest ago are forgotten first


class SolvedPrompts:
    """Remembers which prompts were solved at their last visit. `state()` is JSON, for the checkpoint."""

    def __init__(self, state: Iterable[str] = (), most: int = MOST) -> None:
        self._solved = dict.fromkeys(state)  # ids, the last met at the end
        self._most = most

    def observe(self, ids: Sequence[str], solved: Sequence[bool]) -> dict[str, float]:
        """Count in a step's prompts (`solved`: any rollout passed), those of every process.

        Returns the share that no rollout solves now, of those solved at their last visit; nothing where there is none
        of these, as all through the first epoch.
        """
        before = [now for id, now in zip(ids, solved, strict=True) if id in self._solved]
        for id, now in zip(ids, solved, strict=True):
            self._solved.pop(id, None)
            if now:
                self._solved[id] = None
        while len(self._solved) > self._most:
            del self._solved[next(iter(self._solved))]
        return {"exploration/solved_then_lost": before.count(False) / len(before)} if before else {}

    def state(self) -> list[str]:
        """What to restore it from."""
        return list(self._solved)
