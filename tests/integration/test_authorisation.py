"""Every route x every role x own and other project: who is allowed, who is refused, and who finds nothing."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from api import middleware
from api.examples import TRAIN
from api.main import app
from calibrl.schemas import Role
from jobs.db import session_scope
from jobs.repository import images, samples, webhooks
from tests.support.api_users import ApiUsers
from tests.support.job_steps import checkpoint, machine
from tests.support.rest import serving, submitted
from tests.support.study_jobs import STUDY, recorded_run

pytestmark = pytest.mark.integration
HIDDEN = tuple(f"There is no {what}" for what in ("job", "project", "study", "dataset", "file", "fine-tuning job"))
METHODS = {"get", "post", "put", "patch", "delete", "head"}
OWN, SHA = "own", "0" * 64
ANY_KEY, ADMIN = "any key", "an admin of the service"
Need = Role | str

# What each route asks of the caller: a role in the project of what it names, or one of the two above.
NEEDS: dict[str, Need] = {
    "GET /v1/jobs": ANY_KEY,
    "POST /v1/jobs": Role.MEMBER,
    "POST /v1/jobs:plan": Role.MEMBER,
    "POST /v1/pipelines": Role.MEMBER,
    "DELETE /v1/jobs/{job_id}": Role.MEMBER,
    "POST /v1/jobs/{job_id}/fork": Role.MEMBER,
    "POST /v1/jobs/{job_id}/reproduce": Role.MEMBER,
    "GET /v1/jobs/{job_id}/attempts": Role.VIEWER,
    "GET /v1/jobs/{job_id}/series-comparison": Role.VIEWER,
    "GET /v1/jobs/{job_id}": Role.VIEWER,
    "PATCH /v1/jobs/{job_id}": Role.MEMBER,
    "POST /v1/jobs/{job_id}/cancel": Role.MEMBER,
    "POST /v1/jobs/{job_id}/pause": Role.MEMBER,
    "POST /v1/jobs/{job_id}/resume": Role.MEMBER,
    "POST /v1/jobs/{job_id}/retry": Role.MEMBER,
    "GET /v1/jobs/{job_id}/events": Role.VIEWER,
    "GET /v1/jobs/{job_id}/metrics": Role.VIEWER,
    "GET /v1/jobs/{job_id}/metrics/names": Role.VIEWER,
    "GET /v1/metrics": Role.VIEWER,
    "GET /v1/jobs/{job_id}/exports/tensorboard": Role.VIEWER,
    "GET /v1/jobs/{job_id}/histograms": Role.VIEWER,
    "GET /v1/jobs/{job_id}/samples": Role.VIEWER,
    "GET /v1/jobs/{job_id}/samples/{sample_id}": Role.VIEWER,
    "GET /v1/jobs/{job_id}/images/{sha256}": Role.VIEWER,
    "GET /v1/jobs/{job_id}/log": Role.VIEWER,
    "GET /v1/jobs/{job_id}/checkpoints": Role.VIEWER,
    "GET /v1/jobs/{job_id}/checkpoints/{step}": Role.VIEWER,
    "GET /v1/jobs/{job_id}/checkpoints/{step}/files/{name}": Role.VIEWER,
    "GET /v1/jobs/{job_id}/checkpoints/{step}/archive": Role.VIEWER,
    "GET /v1/jobs/{job_id}/results": Role.VIEWER,
    "GET /v1/jobs/{job_id}/results/{name}": Role.VIEWER,
    "GET /v1/jobs/{job_id}/evaluation": Role.VIEWER,
    "GET /v1/jobs/{job_id}/accuracies": Role.VIEWER,
    "GET /v1/jobs/{job_id}/audit": Role.VIEWER,
    "GET /v1/jobs/{job_id}/hours": Role.VIEWER,
    "GET /v1/jobs/{job_id}/prompts": Role.VIEWER,
    "PUT /v1/jobs/{job_id}/samples/{sample_id}/completions/{completion}/verdict": Role.MEMBER,
    "DELETE /v1/jobs/{job_id}/samples/{sample_id}/completions/{completion}/verdict": Role.MEMBER,
    "GET /v1/jobs/{job_id}/verdicts": Role.VIEWER,
    "GET /v1/jobs/{job_id}/verdicts/next": Role.VIEWER,
    "GET /v1/jobs/{job_id}/trust": Role.VIEWER,
    "GET /v1/jobs/{job_id}/prompts/{prompt}": Role.VIEWER,
    "GET /v1/projects/{slug}/hours": Role.VIEWER,
    "GET /v1/jobs/{job_id}/what-if": Role.VIEWER,
    "POST /v1/jobs/{job_id}/what-if": Role.MEMBER,
    "GET /v1/jobs/{job_id}/bisection": Role.VIEWER,
    "POST /v1/jobs/{job_id}/bisection": Role.MEMBER,
    "POST /v1/jobs/{job_id}/replay": Role.VIEWER,  # changes nothing
    "GET /v1/evaluations/compare": Role.VIEWER,
    "GET /v1/studies": ANY_KEY,
    "POST /v1/studies": Role.MEMBER,
    "GET /v1/studies/{study_id}": Role.VIEWER,
    "GET /v1/studies/{study_id}/report": Role.VIEWER,
    "GET /v1/studies/{study_id}/runs": Role.VIEWER,
    "GET /v1/studies/{study_id}/runs/{arm}/{seed}": Role.VIEWER,
    "POST /v1/studies/runs": Role.MEMBER,
    "POST /v1/studies/{study_id}/cancel": Role.MEMBER,
    "DELETE /v1/studies/{study_id}": Role.MEMBER,
    "GET /v1/datasets": ANY_KEY,
    "POST /v1/datasets": Role.MEMBER,
    "POST /v1/datasets/upload": Role.MEMBER,
    "GET /v1/datasets/{dataset_id}": Role.VIEWER,
    "GET /v1/datasets/{dataset_id}/preview": Role.VIEWER,
    "GET /v1/datasets/{dataset_id}/content": Role.VIEWER,
    "POST /v1/datasets/{dataset_id}/report": Role.VIEWER,  # changes nothing
    "PATCH /v1/datasets/{dataset_id}": Role.MEMBER,
    "DELETE /v1/datasets/{dataset_id}": Role.MEMBER,
    "GET /v1/jobs/{job_id}/stream": Role.VIEWER,
    "GET /v1/stream": ANY_KEY,
    "GET /v1/files": ANY_KEY,
    "POST /v1/files": Role.MEMBER,
    "GET /v1/files/{file_id}": Role.VIEWER,
    "GET /v1/files/{file_id}/content": Role.VIEWER,
    "DELETE /v1/files/{file_id}": Role.MEMBER,
    "GET /v1/fine_tuning/jobs": ANY_KEY,
    "POST /v1/fine_tuning/jobs": Role.MEMBER,
    "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}": Role.VIEWER,
    "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel": Role.MEMBER,
    "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/pause": Role.MEMBER,
    "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/resume": Role.MEMBER,
    "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events": Role.VIEWER,
    "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints": Role.VIEWER,
    "GET /v1/models": ANY_KEY,
    "GET /v1/models/{model}": ANY_KEY,  # the built-in one; others: test_models
    "POST /v1/fine_tuning/alpha/graders/validate": Role.VIEWER,
    "POST /v1/fine_tuning/alpha/graders/run": Role.MEMBER,
    "GET /v1/queue": ANY_KEY,
    "GET /v1/workers": ANY_KEY,
    "DELETE /v1/workers/{name}": ADMIN,
    "POST /v1/workers/{name}/drain": ADMIN,
    "POST /v1/workers/{name}/undrain": ADMIN,
    "GET /v1/projects": ANY_KEY,
    "GET /v1/projects/{slug}": Role.VIEWER,
    "PUT /v1/projects/{slug}": ADMIN,
    "PATCH /v1/projects/{slug}": ADMIN,
    "DELETE /v1/projects/{slug}": ADMIN,
    "GET /v1/projects/{slug}/members": Role.VIEWER,
    "PUT /v1/projects/{slug}/members/{user}": Role.ADMIN,
    "DELETE /v1/projects/{slug}/members/{user}": Role.ADMIN,
    "GET /v1/projects/{slug}/webhooks": Role.ADMIN,
    "POST /v1/projects/{slug}/webhooks": Role.ADMIN,
    "GET /v1/projects/{slug}/webhooks/{webhook_id}": Role.ADMIN,
    "PATCH /v1/projects/{slug}/webhooks/{webhook_id}": Role.ADMIN,
    "DELETE /v1/projects/{slug}/webhooks/{webhook_id}": Role.ADMIN,
    "POST /v1/projects/{slug}/webhooks/{webhook_id}/ping": Role.ADMIN,
    "GET /v1/projects/{slug}/webhooks/{webhook_id}/deliveries": Role.ADMIN,
    "GET /v1/alert-rules": ANY_KEY,
    "POST /v1/alert-rules": Role.ADMIN,
    "GET /v1/alert-rules/{rule_id}": Role.VIEWER,
    "PUT /v1/alert-rules/{rule_id}": Role.ADMIN,
    "DELETE /v1/alert-rules/{rule_id}": Role.ADMIN,
    "GET /v1/usage": ANY_KEY,
    "GET /v1/me": ANY_KEY,
    "POST /v1/sessions": ANY_KEY,
    "DELETE /v1/sessions/current": ANY_KEY,
    "GET /v1/views": ANY_KEY,
    "PUT /v1/views/{name}": ANY_KEY,
    "DELETE /v1/views/{name}": ANY_KEY,  # one's own
    "GET /v1/users": ADMIN,
    "POST /v1/users": ADMIN,
    "GET /v1/users/{name}": ADMIN,
    "PATCH /v1/users/{name}": ADMIN,
    "DELETE /v1/users/{name}": ADMIN,
    "GET /v1/keys": ANY_KEY,
    "GET /v1/keys/{key_id}": ANY_KEY,
    "POST /v1/keys": ANY_KEY,
    "DELETE /v1/keys/{key_id}": ANY_KEY,  # one's own; of others: test_access
    "GET /v1/audit": ADMIN,  # with a project, its admins: test_access
    "GET /v1/audit/export": ADMIN,  # the same
}
GRADER = {"type": "string_check", "name": "g", "input": "a", "reference": "a", "operation": "eq"}
NO_PROGRESS = {"type": "no_progress", "minutes": 30}
BODIES: dict[str, Any] = {
    "POST /v1/jobs": {**TRAIN, "project": OWN},
    "POST /v1/jobs:plan": {**TRAIN, "project": OWN},
    "POST /v1/pipelines": {"jobs": [{**TRAIN, "project": OWN}]},
    "POST /v1/jobs/{job_id}/fork": {},
    "POST /v1/jobs/{job_id}/what-if": {},
    "POST /v1/jobs/{job_id}/bisection": {},
    "PATCH /v1/jobs/{job_id}": {"priority": "low"},
    # Not installed: refused, but not for lack of a role.
    "POST /v1/jobs/{job_id}/replay": {"rewards": [{"type": "plugin", "name": "none"}]},
    "POST /v1/fine_tuning/alpha/graders/validate": {"grader": GRADER},
    "POST /v1/fine_tuning/alpha/graders/run": {"grader": GRADER, "model_sample": "a"},
    "POST /v1/studies": {**STUDY, "base": {**STUDY["base"], "project": OWN}},
    "PUT /v1/jobs/{job_id}/samples/{sample_id}/completions/{completion}/verdict": {"right": True},
    "POST /v1/studies/runs": {"project": OWN, "run": recorded_run()},
    "POST /v1/datasets": {"name": "of the hub", "hub": "some/body", "project": OWN},
    "POST /v1/datasets/upload": {},  # no row in it: refused, but not for lack of a role
    "POST /v1/datasets/{dataset_id}/report": {},
    "PATCH /v1/datasets/{dataset_id}": {"name": "other"},
    "PUT /v1/projects/{slug}": {},
    "PATCH /v1/projects/{slug}": {},
    "PUT /v1/projects/{slug}/members/{user}": {"role": "viewer"},
    "PATCH /v1/projects/{slug}/webhooks/{webhook_id}": {"events": ["job.failed"]},
    "POST /v1/projects/{slug}/webhooks": {"url": "https://192.0.2.1/"},  # refused, but not for lack of a role
    "POST /v1/alert-rules": {"project": OWN, "name": "stuck", "condition": NO_PROGRESS},
    "PUT /v1/alert-rules/{rule_id}": {"condition": NO_PROGRESS},
    "PUT /v1/views/{name}": {"address": "compare"},
    "POST /v1/users": {"name": "somebody"},
    "PATCH /v1/users/{name}": {"active": True},
    "POST /v1/keys": {"name": "another"},
}
OF_OWN_PROJECT = {"OpenAI-Project": OWN}
HEADERS = {
    "POST /v1/files": OF_OWN_PROJECT,
    "POST /v1/fine_tuning/alpha/graders/validate": OF_OWN_PROJECT,
    "POST /v1/fine_tuning/alpha/graders/run": OF_OWN_PROJECT,
}
QUERIES = {
    "GET /v1/jobs/{job_id}/stream": {"max_seconds": "0.1"},
    "GET /v1/stream": {"max_seconds": "0.1"},
    "POST /v1/datasets/upload": {"name": "a", "project": OWN},
    "GET /v1/jobs/{job_id}/histograms": {"name": "rareness"},
    "GET /v1/evaluations/compare": {"jobs": "{job_id}"},
    "GET /v1/jobs/{job_id}/series-comparison": {"other": "{job_id}"},
    "GET /v1/metrics": {"jobs": "{job_id}", "names": "reward/mean"},
}


def routes() -> set[str]:
    """Every operation under /v1, as `METHOD /path`."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        if path.startswith("/v1")
        for method in METHODS & operations.keys()
    }


@pytest.fixture
def stage(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ApiUsers, dict[str, str], dict[str, str]]]:
    """Yield the users, the key of each user, and the values of the path parameters."""
    monkeypatch.setattr(middleware, "STRANGERS_AT_ONCE", 1000)  # more than there are routes
    with serving() as admin, ApiUsers(admin) as users:
        admin.put(f"/v1/projects/{OWN}", json={})
        admin.put("/v1/projects/other", json={})
        keys = {"anonymous": "", "outsider": users.add("outsider", {"other": "admin"})}
        keys |= {f"own {role}": users.add(f"own-{role}", {OWN: role.value}) for role in Role}
        keys |= {"service admin": users.add("root", {}, admin=True)}
        users.add("leaver", {OWN: "viewer"})
        machine("w")
        yield users, keys, _names(admin)


def _names(admin: httpx.Client) -> dict[str, str]:
    job = submitted(admin, project=OWN)["id"]
    with session_scope() as session:
        group = {"prompt_id": "p", "images": [SHA], "completions": [{"text": "2", "passed": True, "reward": 1.0}]}
        samples.insert(session, UUID(job), 1, group, 10**6, image_bytes=4)
        images.put(session, UUID(job), SHA, b"\x89PNG")
    checkpoint(UUID(job), 1, best=True)
    (sample,) = admin.get(f"/v1/jobs/{job}/samples").json()["data"]
    return {
        "job_id": job,
        "sample_id": str(sample["id"]),
        "sha256": SHA,
        "slug": OWN,
        "user": "leaver",
        "name": "w",
        "step": "1",
        "dataset_id": admin.post("/v1/datasets", json={"name": "d", "hub": "a/b", "project": OWN}).json()["id"],
        "webhook_id": _webhook(),
        "rule_id": admin.post("/v1/alert-rules", json={**BODIES["POST /v1/alert-rules"], "name": "r"}).json()["id"],
        "arm": "a",
        "completion": "0",
        "seed": "0",
        "study_id": admin.post("/v1/studies", json={**BODIES["POST /v1/studies"], "name": "s"}).json()["id"],
        "fine_tuning_job_id": f"ftjob-{job}",
        "file_id": _file(admin),
        "prompt": "0" * 16,
        "model": "tiny-vlm",
        "key_id": job,  # no key has this id
    }


def _file(admin: httpx.Client) -> str:
    row = b'{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "a!"}]}'
    answer = admin.post(
        "/v1/files",
        headers={"OpenAI-Project": OWN},
        files={"file": ("a.jsonl", row)},
        data={"purpose": "fine-tune"},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def _webhook() -> str:
    with session_scope() as session:
        made = webhooks.add(session, OWN, url="https://192.0.2.1/", events=[], secret="whsec_", user="admin")
        return str(made.id)


def test_no_route_is_missing_from_the_matrix() -> None:
    assert routes() == set(NEEDS)


def test_every_route_for_every_role(stage: tuple[ApiUsers, dict[str, str], dict[str, str]]) -> None:
    users, keys, names = stage
    wrong = []
    for route in sorted(NEEDS, key=_order):
        method, path = route.split()
        if path == "/v1/users/{name}":
            path = f"/v1/users/{'leaver' if method == 'DELETE' else 'own-viewer'}"
        for who, key in keys.items():
            body = BODIES.get(route)
            if route == "POST /v1/fine_tuning/jobs":
                body = {"model": "tiny-vlm", "training_file": names["file_id"]}
            query = {field: value.format(**names) for field, value in QUERIES.get(route, {}).items()}
            options = {"json": body, "params": query, "headers": HEADERS.get(route, {})}
            answer = users.ask(key, method, path.format(**names), **options)
            if not _as_expected(NEEDS[route], who, answer):
                wrong.append(f"{route} by {who}: {answer.status_code} {answer.text[:200]}")
            if method == "DELETE" and answer.is_success:
                break  # it is gone
    assert not wrong, "\n".join(wrong)


def _order(route: str) -> tuple[bool, str]:
    """Sort DELETE routes last, because they remove roles."""
    return route.startswith("DELETE"), route


def _as_expected(need: Need, who: str, answer: httpx.Response) -> bool:
    status = answer.status_code
    if who == "anonymous":
        return status == 401
    if who == "service admin" or need == ANY_KEY:
        return _let_in(answer)
    if need == ADMIN:
        return status == 403
    assert isinstance(need, Role)
    if who == "outsider":
        hidden = {422: "does not exist", 400: "there is no file"}
        return status == 404 or (status in hidden and hidden[status] in answer.text)
    allowed = Role(who.removeprefix("own ")).includes(need)
    return _let_in(answer) if allowed else status == 403


def _let_in(answer: httpx.Response) -> bool:
    """Return True unless access was refused. Other errors are allowed: a worker's file is not on this machine."""
    hidden = answer.status_code == 404 and _detail(answer).startswith(HIDDEN) and "Available:" not in _detail(answer)
    return answer.status_code not in (401, 403, 405) and answer.status_code < 500 and not hidden


def _detail(answer: httpx.Response) -> str:
    content: dict[str, Any] = answer.json()
    return str(content["error"]["message"] if "error" in content else content["detail"])
