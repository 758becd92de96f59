"""Errors of requests, each with its HTTP status. The API renders them in one place."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """Error in one field, named as in the request: `algorithm.negative_slope`, `models.0.path`."""

    field: str
    message: str


class ServiceError(Exception):
    """Base class: a request that cannot be fulfilled, with the reason."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class NotFound(ServiceError):
    """The resource of the request does not exist."""

    status = 404
    code = "not-found"
    title = "Not found"


class Forbidden(ServiceError):
    """The caller can see the resource, but is not allowed to do this."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class Conflict(ServiceError):
    """The request is not possible in the present state."""

    status = 409
    code = "conflict"
    title = "Conflict"


class PreconditionFailed(ServiceError):
    """The resource has changed since the state that the request names."""

    status = 412
    code = "changed"
    title = "Changed meanwhile"


class RequestInProgress(Conflict):
    """A request with the same key is being processed: repeat it later."""

    code = "in-flight"
    title = "Request in progress"


class QuotaExceeded(ServiceError):
    """The request exceeds a limit of its project."""

    status = 409
    code = "quota-exceeded"
    title = "Quota exceeded"


class StorageUnavailable(ServiceError):
    """The storage of uploads cannot be reached, or is full."""

    status = 503
    code = "storage-away"
    title = "Storage unavailable"


class StorageAway(StorageUnavailable):
    """The storage of uploads cannot be reached, or is full. Unlike a missing or damaged file, this can pass."""


class Busy(ServiceError):
    """The service is at its limit for this kind of request: repeat it later."""

    status = 503
    code = "busy"
    title = "Busy"


class Invalid(ServiceError):
    """Fields of the request are not valid; `errors` names each."""

    status = 422
    code = "invalid"
    title = "Invalid request"
