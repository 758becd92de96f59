"""What a request that did not work raises."""

from collections.abc import Mapping


class CalibrlError(Exception):
    """A request that did not work. `str()` is one line: what went wrong, in which field, and what mends it.

    `status` is the HTTP status, None where no answer came; `errors` are {field, message} of a problem document.
    """

    def __init__(
        self,
        title: str,
        *,
        status: int | None = None,
        detail: str | None = None,
        errors: tuple[Mapping[str, str], ...] = (),
    ) -> None:
        self.title, self.status, self.detail, self.errors = title, status, detail, errors
        fields = "; ".join(f"{error.get('field', '?')}: {error.get('message', '')}" for error in errors)
        super().__init__(" ".join(": ".join(part for part in (title, fields or detail) if part).split()))


class Unreachable(CalibrlError):
    """No connection: worth another try for a request that only reads, or that the service knows again."""


class TimedOut(Unreachable):
    """A connection, and no answer in time."""
