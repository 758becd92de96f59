"""The reward of both arms: pseudo-random, deterministic per text, and cheap to compute."""

import zlib


def reward(completion: str, prompt: int, *, equal: bool) -> float:
    """Return a number from 0 to 1 that differs between completions, so that every rollout has an advantage.

    `equal`: all completions of every second prompt get 0, as if none were correct: their group has no advantage.
    """
    return 0.0 if equal and prompt % 2 == 0 else zlib.crc32(completion.encode()) / 2**32
