"""Errors of failed requests."""

from collections.abc import Mapping


class CalibrlError(Exception):
    """A failed request. `str()` is one line: the cause, the field and the remedy.

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
    """No connection. It is safe to repeat requests that only read or have an idempotency key."""


class TimedOut(Unreachable):
    """Connected, but no answer in time."""
