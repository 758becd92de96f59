"""The Python client of the service: typed, synchronous, and safe to share between threads.

with Client() as client:                       # CALIBRL_API_URL and CALIBRL_API_KEY, or the running local stack
    job = client.submit({"kind": "train", ...})
    print(client.job(job.id).status)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
from pydantic import BaseModel, Field, ValidationError
from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_attempt, wait_exponential

from calibrl.folder_lock import is_held
from jobs.schemas import (
    Checkpoint,
    EvaluateSpec,
    Event,
    Health,
    Histogram,
    Job,
    JobStatus,
    LogChunk,
    MetricRow,
    Page,
    Priority,
    Project,
    ProjectSettings,
    QueueEntry,
    Sample,
    SampleSummary,
    TrainSpec,
    Usage,
    Worker,
)
from jobs.settings import get_settings

STACK_FILE = "stack.json"  # in the data folder of a running local stack
TIMEOUT = httpx.Timeout(15.0, connect=3.0)
SUBMIT_TIMEOUT = httpx.Timeout(120.0, connect=3.0)  # the service looks into the spec's data files first
RETRIED = frozenset({502, 503})
MOST = 1000  # items of a page that the service gives at most
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Model = TypeVar("Model", bound=BaseModel)
JobId = UUID | str


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


class Stack(BaseModel):
    """What a running local stack says of itself."""

    api_url: str
    dashboard_url: str | None = None
    api_key: str = Field(repr=False)


def read_stack(data_dir: Path) -> Stack | None:
    """The local stack on that folder, None where none runs. Raises CalibrlError for a file that can't be read.

    A killed stack leaves its file behind, and somebody else may listen at its port by now: only its lock tells.
    """
    path = data_dir / STACK_FILE
    try:
        content = path.read_bytes()
        return Stack.model_validate_json(content) if is_held(data_dir) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise CalibrlError(f"{path} can't be used; stop its stack and start again with `calibrl up`") from error


def _address(url: str | None, api_key: str | None, data_dir: Path | None) -> tuple[str, str]:
    """Where to send requests and with which key: what was given, else the environment's, else the local stack's."""
    settings = get_settings()
    stack = read_stack(data_dir or settings.data_dir)
    if url is None and data_dir is not None:
        if stack is None:
            raise CalibrlError(f"no stack is running on {data_dir}: start one with `calibrl up --data {data_dir}`")
        return stack.api_url, api_key or stack.api_key
    if url is None:
        url = stack.api_url if stack and "api_url" not in settings.model_fields_set else settings.api_url
    url = url.rstrip("/")
    if api_key is None and settings.api_key is not None:
        api_key = settings.api_key.get_secret_value()
    if api_key is None and stack and stack.api_url == url:  # a stack's key goes to no other address
        api_key = stack.api_key
    if api_key is None:
        raise CalibrlError(
            f"no local stack is running (start one with `calibrl up`), and no key for {url} is set (CALIBRL_API_KEY)"
        )
    return url, api_key


class Client:
    """The service's REST API. Every method raises `CalibrlError` where it can't do what it says.

    `url` and `api_key` default to CALIBRL_API_URL and CALIBRL_API_KEY, and those to the running local stack's;
    with `data_dir`, to the stack that runs on that folder.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, *, data_dir: Path | None = None) -> None:
        self.url, key = _address(url, api_key, data_dir)
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise CalibrlError(f"{self.url!r} is no address of a service: give one like http://127.0.0.1:8000")
        if not (key.isascii() and key.isprintable()):
            raise CalibrlError("the key has characters that no HTTP header can carry: check CALIBRL_API_KEY")
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT,
            trust_env=address.host not in LOOPBACK,  # no HTTP_PROXY for this very machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def submit(self, spec: Mapping[str, Any] | TrainSpec | EvaluateSpec) -> Job:
        """Post a job; a refused spec's error names each field."""
        return self._send("POST", Job, "/v1/jobs", spec, timeout=SUBMIT_TIMEOUT)

    def job(self, id: JobId) -> Job:
        """One job, as it stands."""
        return self._get(Job, _job_path(id))

    def jobs(
        self,
        *,
        status: JobStatus | str | None = None,
        kind: str | None = None,
        project: str | None = None,
        after: JobId | None = None,
        limit: int = 100,
    ) -> Page[Job]:
        """Jobs, newest first; `after` is the id of the last one seen."""
        return self._get(Page[Job], "/v1/jobs", status=status, kind=kind, project=project, after=after, limit=limit)

    def cancel(self, id: JobId) -> Job:
        """Ask a job to stop; a job that has ended is refused (status 409)."""
        return self._ask(Job, _job_path(id, "cancel"))

    def pause(self, id: JobId) -> Job:
        """Hold a job; one that runs writes a checkpoint first (`pausing`). One that has ended is refused (409)."""
        return self._ask(Job, _job_path(id, "pause"))

    def resume(self, id: JobId) -> Job:
        """Put a paused job back in line, to go on from its last checkpoint; any other is refused (409)."""
        return self._ask(Job, _job_path(id, "resume"))

    def retry(self, id: JobId) -> Job:
        """Run a failed or cancelled job again, from its last checkpoint; any other is refused (409)."""
        return self._ask(Job, _job_path(id, "retry"))

    def prioritise(self, id: JobId, priority: Priority) -> Job:
        """Give a job another priority class; a job that has ended is refused (409)."""
        return self._send("PATCH", Job, _job_path(id), {"priority": priority})

    def metrics(
        self, id: JobId, *, names: list[str] | None = None, after_step: int = 0, limit: int = 1000
    ) -> Page[MetricRow]:
        """Metrics of the steps past `after_step`, ascending; all names, or those given."""
        wanted = ",".join(names) if names is not None else None
        return self._get(Page[MetricRow], _job_path(id, "metrics"), names=wanted, after_step=after_step, limit=limit)

    def histograms(self, id: JobId, name: str, *, after_step: int = 0, limit: int = 1000) -> Page[Histogram]:
        """One histogram's history past `after_step`, ascending."""
        return self._get(Page[Histogram], _job_path(id, "histograms"), name=name, after_step=after_step, limit=limit)

    def samples(self, id: JobId, *, step: int | None = None, after: int = 0, limit: int = 100) -> Page[SampleSummary]:
        """Sampled groups in ascending id, without their contents."""
        return self._get(Page[SampleSummary], _job_path(id, "samples"), step=step, after=after, limit=limit)

    def sample(self, id: JobId, sample_id: int) -> Sample:
        """One sampled group, whole."""
        return self._get(Sample, _job_path(id, "samples", str(sample_id)))

    def image(self, id: JobId, sha256: str) -> bytes:
        """A sample's image: PNG bytes."""
        return self._fetch(_job_path(id, "images", sha256)).content

    def events(self, id: JobId, *, after: int = 0, limit: int = 100) -> Page[Event]:
        """What happened to the job, in ascending id."""
        return self._get(Page[Event], _job_path(id, "events"), after=after, limit=limit)

    def log(self, id: JobId, *, after: int = 0) -> LogChunk:
        """The job's log from byte `after` on; ask again with `after=chunk.next`."""
        return self._get(LogChunk, _job_path(id, "log"), after=after)

    def checkpoints(self, id: JobId) -> list[Checkpoint]:
        """The checkpoints that the job has kept."""
        return self._get(Page[Checkpoint], _job_path(id, "checkpoints")).data

    def queue(self, project: str | None = None) -> list[QueueEntry]:
        """The jobs that have not started, those in line first: why each waits, and when it may start."""
        return self._get(Page[QueueEntry], "/v1/queue", project=project).data

    def workers(self) -> list[Worker]:
        """The machines that run jobs, by name, at most a thousand."""
        return self._get(Page[Worker], "/v1/workers", limit=MOST).data

    def drain(self, name: str, *, now: bool = False) -> Worker:
        """Have a machine take no more jobs; with `now`, also give back what it runs, from a checkpoint."""
        return self._send("POST", Worker, _path("workers", name, "drain"), {"now": now})

    def undrain(self, name: str) -> Worker:
        """Have a drained machine take jobs again; one that is not drained is refused (409)."""
        return self._ask(Worker, _path("workers", name, "undrain"))

    def projects(self) -> list[Project]:
        """Projects and what each may use, by name, at most a thousand."""
        return self._get(Page[Project], "/v1/projects", limit=MOST).data

    def project(self, slug: str) -> Project:
        """One project."""
        return self._get(Project, _path("projects", slug))

    def put_project(self, slug: str, settings: Mapping[str, Any] | ProjectSettings) -> Project:
        """Add a project, or change what it may use: what is left out is set to its default."""
        return self._send("PUT", Project, _path("projects", slug), settings)

    def usage(self) -> list[Usage]:
        """This calendar month's slot-hours (UTC), by project and user."""
        return self._get(Page[Usage], "/v1/usage").data

    def ready(self) -> Health:
        """Whether the service reaches what it needs; `ok` False is an answer, not an error."""
        response = self._once("GET", "/readyz")
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return self._parsed(Health, response)
        return self._parsed(Health, _checked(response))

    def _get(self, model: type[Model], path: str, **params: object) -> Model:
        return self._parsed(model, self._fetch(path, **params))

    def _fetch(self, path: str, **params: object) -> httpx.Response:
        """A GET, tried again where the connection or a proxy in between broke: reading twice does no harm."""
        given = {name: str(value) for name, value in params.items() if value is not None}
        retrying = Retrying(
            stop=stop_after_attempt(3),
            wait=wait_exponential(multiplier=0.1, max=1),
            retry=retry_if_exception_type(_Unreachable) | retry_if_result(_passing_trouble),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        response: httpx.Response = retrying(self._once, "GET", path, params=given)
        return _checked(response)

    def _ask(self, model: type[Model], path: str) -> Model:
        return self._parsed(model, _checked(self._once("POST", path)))

    def _send(
        self, method: str, model: type[Model], path: str, given: Mapping[str, Any] | BaseModel, **options: Any
    ) -> Model:
        content = given.model_dump(mode="json", exclude_unset=True) if isinstance(given, BaseModel) else given
        try:
            body = json.dumps(content, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CalibrlError(f"the request holds something that JSON can't say: {error}") from error
        headers = {"Content-Type": "application/json"}
        answer = self._once(method, path, content=body, headers=headers, **options)
        return self._parsed(model, _checked(answer))

    def _once(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.ConnectError as error:
            raise _Unreachable(f"nothing answers at {self.url}: start the service with `calibrl up`") from error
        except httpx.TimeoutException as error:
            raise CalibrlError(f"{self.url} did not answer {method} {path} in time; is it overloaded?") from error
        except httpx.RemoteProtocolError as error:
            raise _Unreachable(f"{self.url} broke off the connection: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CalibrlError(f"{self.url} can't be asked for {path}: {error}") from error

    def _parsed(self, model: type[Model], response: httpx.Response) -> Model:
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "body"
            raise CalibrlError(
                f"{response.url} answered with something that is no {model.__name__}",
                status=response.status_code,
                detail=f"{where}: {fault['msg']}; is this the API, and of this version?",
            ) from error


class _Unreachable(CalibrlError):
    """No connection: worth another try for a request that only reads."""


def _passing_trouble(response: httpx.Response) -> bool:
    return response.status_code in RETRIED


def _path(*parts: str) -> str:
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def _job_path(id: JobId, *rest: str) -> str:
    return _path("jobs", str(id), *rest)


def _checked(response: httpx.Response) -> httpx.Response:
    """The response, or its problem document (RFC 9457) as an error."""
    if response.is_success:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "title" not in problem:
        raise CalibrlError(f"{response.url} answered {response.status_code}", status=response.status_code)
    raise CalibrlError(
        str(problem["title"]),
        status=response.status_code,
        detail=problem.get("detail"),
        errors=tuple(problem.get("errors") or ()),
    )
