"""The reward of both arms: as good as random, always the same for the same text, and as cheap as can be."""

import zlib


def reward(completion: str, prompt: int, *, equal: bool) -> float:
    """A number from 0 to 1 that differs from completion to completion, so that every rollout has an advantage.

    `equal`: each second prompt's completions all get 0, as where no rollout is right: their group has no advantage.
    """
    return 0.0 if equal and prompt % 2 == 0 else zlib.crc32(completion.encode()) / 2**32
