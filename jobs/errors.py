"""What can be wrong with a request, each with the HTTP status that says so. The API renders them, in one place."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field, named as its author wrote it: `algorithm.negative_slope`, `models.0.path`."""

    field: str
    message: str


class ServiceError(Exception):
    """The base: a request that can't be done, and why."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class NotFound(ServiceError):
    """What the request names does not exist."""

    status = 404
    code = "not-found"
    title = "Not found"


class Forbidden(ServiceError):
    """Who asks may see what the request names, but not do this with it."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class Conflict(ServiceError):
    """What the request asks for is not possible in the present state."""

    status = 409
    code = "conflict"
    title = "Conflict"


class InFlight(Conflict):
    """The same request is being answered at this moment: ask again."""

    code = "in-flight"
    title = "In flight"


class QuotaExceeded(ServiceError):
    """What the request asks for is more than its project may have."""

    status = 409
    code = "quota-exceeded"
    title = "Quota exceeded"


class StorageAway(ServiceError):
    """Where uploads are kept can't be reached, or has no room."""

    status = 503
    code = "storage-away"
    title = "Storage can't be used"


class Busy(ServiceError):
    """The service does as much of this as it can; later, or elsewhere, it will do."""

    status = 503
    code = "busy"
    title = "Busy"


class Invalid(ServiceError):
    """The request's fields can't be accepted; `errors` names each."""

    status = 422
    code = "invalid"
    title = "Invalid request"
