"""The prompts of each step: which they are, and their encoding before the step needs it."""

from __future__ import annotations

from collections.abc import Sequence

from calibrl_core.data.order import DataOrder
from calibrl_core.data.schema import Example
from calibrl_core.distributed.ranks import Ranks
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.encoding_workers import EncodingWorkers


class PromptSource:
    """Gives the examples of each step to all processes, and encodes those of this process.

    With workers, the images of the next step are prepared while a step runs, and those of a validation while it
    samples.
    """

    def __init__(
        self, order: DataOrder, encoder: PromptEncoder, ranks: Ranks, workers: EncodingWorkers | None = None
    ) -> None:
        self._order, self._encoder, self._ranks, self._workers = order, encoder, ranks, workers
        if workers:
            encoder.ahead = workers.take

    def next_step(self) -> list[Example]:
        """Begin the next step; return the examples of all processes."""
        return self._order.next_step()

    @property
    def ahead(self) -> bool:
        """Return if worker processes encode prompts before the trainer needs them."""
        return self._workers is not None

    def more_examples(self, count: int) -> list[Example]:
        """Return other examples for the current step: see `DataOrder.more_examples`."""
        return self._order.more_examples(count)

    def upcoming(self) -> list[Example]:
        """Return the examples of the next step, of all processes, if the current one takes no more."""
        return self._order.upcoming()

    def prepare(self, examples: Sequence[Example]) -> None:
        """Encode examples of this process for the current step, and begin with those of the next step.

        Raises:
            DataError: as `PromptEncoder.encode`.
            RuntimeError: as `EncodingWorkers.take`.
        """
        for example in examples:
            self._encoder.encode_one(example)
        self.begin(())

    def begin(self, examples: Sequence[Example]) -> None:
        """Begin to encode examples of this process, which are needed before the next step, and then those of the next
        step.

        Raises:
            RuntimeError: as `EncodingWorkers.take`.
        """
        if self._workers is not None:
            upcoming = self._order.upcoming()
            mine = self._ranks.my_slice(len(upcoming))
            self._workers.request([*examples, *upcoming[mine.start : mine.stop]])
