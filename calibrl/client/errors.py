"""Errors of failed requests."""

from collections.abc import Mapping

SHOWN = 20  # fields in `lines`; the others are counted


class CalibrlError(Exception):
    """A failed request. `str()` is one line: the cause, the field and the remedy; `lines` has one line per field.

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
        faults = [" ".join(f"{error.get('field', '?')}: {error.get('message', '')}".split()) for error in errors]
        super().__init__(" ".join(": ".join(part for part in (title, "; ".join(faults) or detail) if part).split()))
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        self.lines = [f"{title}:", *faults[:SHOWN], *more] if len(faults) > 1 else [str(self)]


class Unreachable(CalibrlError):
    """No connection. It is safe to repeat requests that only read or have an idempotency key."""


class TimedOut(Unreachable):
    """Connected, but no answer in time."""
