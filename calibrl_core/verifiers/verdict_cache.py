"""Verdicts by the content that they were given on, so that equal content is judged once per run."""

from collections import OrderedDict
from hashlib import sha256

MOST_VERDICTS = 65_536  # about 12 MB


class VerdictCache:
    """The verdicts that were used last. Failed verdicts are not kept: the next request asks again."""

    def __init__(self, most: int = MOST_VERDICTS) -> None:
        self._most = most
        self._values: OrderedDict[bytes, float] = OrderedDict()

    def get(self, key: bytes) -> float | None:
        """Return a verdict, or None if it is not known."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: bytes, value: float) -> None:
        """Keep a verdict; drop the one whose last use is longest ago if there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)


def content_key(settings: str, text: str, truth: str) -> bytes:
    """Return the key of a verdict: a digest of the reward's settings and of what it is given."""
    digest = sha256()
    for part in (settings, text, truth):
        data = part.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()
