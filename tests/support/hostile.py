"""Hostile inputs, each a request with its expected result: refused with a problem document, or kept as text."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from api.examples import TRAIN

REFUSED = frozenset({400, 401, 403, 404, 405, 409, 411, 413, 415, 422, 431})
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Attack:
    """Describes a request. `{job}` and `{other}` in its path: ids of an own job and of another project's job."""

    name: str
    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    harmless: bool = False  # a success is allowed, because the request has no effect


def spec(**changes: Any) -> bytes:
    return json.dumps({**TRAIN, "project": "mine", **changes}).encode()


def _submit(name: str, /, **changes: Any) -> Attack:
    return Attack(name, "POST", "/v1/jobs", spec(**changes), JSON)


def paths() -> Iterator[Attack]:
    """Files of the server that no job may read."""
    for path in (
        "/etc/passwd", "/proc/self/environ", "/root/.ssh/id_rsa", "../../etc/passwd", "/allowed/../etc/passwd",
        "~/.ssh/id_rsa",
        "file:///etc/passwd", "s3://bucket/key", "http://169.254.169.254/", "//server/share", "/dev/zero", "/dev/stdin",
        "C:\\Windows\\win.ini", "\\\\server\\share", "/etc/passwd\x00.jsonl", "/" + "a" * 900,
        "$HOME/x", "`id`", "|id", "%2e%2e%2f",
    ):  # fmt: skip
        yield _submit(f"data from {path[:40]!r}", data={"path": path})
        yield _submit(f"a model from {path[:40]!r}", model={"path": path})
    for linked in ("{link}/secret.jsonl", "{link}"):
        yield _submit(f"data over a link: {linked}", data={"path": linked})


def specs() -> Iterator[Attack]:
    """Fields that carry more than they should."""
    for name in (
        "<script>",
        "a\nb",
        "'; DROP TABLE jobs; --",
        "../../x",
        "\u202egnp.exe",
        "",
        "x" * 500,
        "\x00",
        "{{7*7}}",
        "${jndi:ldap://x}",
    ):
        yield _submit(f"named {name[:20]!r}", name=name)
    for project in ("MINE", "mine/../theirs", "theirs", "'; --", "*", "", "x" * 100, "mine\x00"):
        yield _submit(f"in the project {project[:20]!r}", project=project)
    for label in ({"<b>": "x"}, {"x": "y" * 600}, {"x": "\x00"}, {"__proto__": "x"}, {f"k{n}": "v" for n in range(40)}):
        yield _submit(f"labelled {str(label)[:30]}", labels=label)
    for extra in ("__class__", "trust_remote_code", "command", "env", "image", "user"):
        yield _submit(f"with the field {extra}", **{extra: "x"})
    wrong_steps: list[Any] = [-1, 0, 10**12, 1.5, "1; id", None, [], True, float("1e308")]
    for steps in wrong_steps:
        yield _submit(f"of {steps!r} steps", steps=steps)
    for gpus in (-1, 65, 10**9, "all"):
        yield _submit(f"with {gpus} GPUs", resources={"gpus": gpus})
    for hub in ("../../etc", "a/b/c", "https://evil.example/x", "a/b;id", "a"):
        yield _submit(f"of the hub: {hub}", data={"hub": hub})
        yield _submit(f"with a model of the hub: {hub}", model={"hub": hub})
    for revision in ("../../main", "a?b=c", "a#b", ""):
        yield _submit(f"with the revision {revision}", model={"hub": "Qwen/tiny", "revision": revision})
    for reward in ("os.system", "../evil", "exec", "__import__"):
        yield _submit(f"judged by {reward}", rewards=[{"type": reward}])
    yield _submit("a plug-in that is not there", rewards=[{"type": "plugin", "name": "os:system"}])
    yield _submit("a model that runs code", model={"path": "/allowed/model", "trust_remote_code": True})
    yield _submit("after a job of another project", depends_on=["{other}"])
    yield _submit("from a job of another project", model={"from_job": "{other}"})
    yield _submit("on a dataset that is not there", data={"dataset": str(uuid4())})


def bodies() -> Iterator[Attack]:
    """Bytes that are no proper JSON, or too much of it."""
    bomb = b"[" * 100_000
    for name, body in {
        "a million brackets": bomb + b"]" * 100_000,
        "brackets that never close": bomb,
        "bytes that are no UTF-8": b'{"kind": "\xff\xfe"}',
        "UTF-16": '{"kind": "train"}'.encode("utf-16"),
        "an unfinished body": b'{"kind": "train"',
        "nothing": b"",
        "a number of a million digits": b'{"steps": ' + b"9" * 900_000 + b"}",
        "half a surrogate pair": b'{"kind": "train", "name": "\\ud800"}',
        "the same key twice": b'{"kind": "train", "kind": "evaluate"}',
        "a pickle": base64.b64decode("gASVHgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAJpZJSFlFKULg=="),
        "YAML with a Python object": b"!!python/object/apply:os.system ['id']",
        "XML with an entity": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "Infinity": b'{"steps": Infinity}',
        "two megabytes": b'{"name": "' + b"x" * 2_000_000 + b'"}',
    }.items():
        yield Attack(name, "POST", "/v1/jobs", body, JSON)
    for kind in (
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/x-python-pickle",
    ):
        yield Attack(f"a spec as {kind}", "POST", "/v1/jobs", spec(), {"Content-Type": kind})


def addresses() -> Iterator[Attack]:
    """Paths and queries that try to be more."""
    for id in (
        "1",
        "..",
        "%2e%2e",
        "{job}'--",
        "00000000-0000-0000-0000-000000000000",
        "{job}%00",
        "*",
        "null",
        "-1",
        "{job}/../{other}",
    ):
        yield Attack(f"the job {id}", "GET", f"/v1/jobs/{id}")
    for name, value in {
        "after": "1 OR 1=1", "status": "running' OR '1'='1", "kind": "x'; DROP TABLE jobs; --",
        "project": "mine,theirs",
        "limit": "1000000", "limit ": "-1", "limit  ": "NaN",
    }.items():  # fmt: skip
        yield Attack(f"{name.strip()}={value}", "GET", "/v1/jobs", params={name.strip(): value})
    for value in ("-2", "99999999999999999999", "1e9", "x", "0x10"):
        yield Attack(f"metrics after step {value}", "GET", "/v1/jobs/{job}/metrics", params={"after_step": value})
    for value in ("x' OR 'a'='a", "a" * 9000, "\x00"):
        yield Attack(
            f"metrics named {value[:12]!r}", "GET", "/v1/jobs/{job}/metrics", params={"names": value}, harmless=True
        )
    for sha in ("../" * 8 + "etc/passwd", "0" * 63, "0" * 64, "z" * 64, "%2e%2e%2f"):
        yield Attack(f"the image {sha[:20]}", "GET", f"/v1/jobs/{{job}}/images/{sha}")
    for file in (
        "../config.json",
        "..%2f..%2fconfig.json",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "model.safetensors%00.txt",
        "..\\x",
    ):
        yield Attack(f"the checkpoint's file {file}", "GET", f"/v1/jobs/{{job}}/checkpoints/1/files/{file}")
        yield Attack(f"the result {file}", "GET", f"/v1/jobs/{{job}}/results/{file}")
    for method in ("TRACE", "CONNECT", "PROPFIND", "BREW"):
        yield Attack(f"the method {method}", method, "/v1/jobs")


def doors() -> Iterator[Attack]:
    """Keys that are none, and headers that try to be believed."""
    for key in (
        "Bearer",
        "Bearer ",
        "Basic YWRtaW46YWRtaW4=",
        "Bearer null",
        "Bearer ' OR 1=1 --",
        "Bearer calibrl_",
        "bearer" + " x" * 500,
        "{revoked}",
        "{expired}",
    ):
        yield Attack(f"the key {key[:24]!r}", "GET", "/v1/jobs", headers={"Authorization": key})
    for route in (
        "",
        "/events",
        "/metrics",
        "/log",
        "/samples",
        "/samples/1",
        "/checkpoints",
        "/results",
        "/stream",
        "/histograms?name=x",
        "/metrics/names",
        "/exports/tensorboard",
    ):
        yield Attack(f"another project's job{route}", "GET", f"/v1/jobs/{{other}}{route}")
    for action in ("cancel", "pause", "resume", "retry"):
        yield Attack(f"{action} another project's job", "POST", f"/v1/jobs/{{other}}/{action}")
    yield Attack("another project's members", "GET", "/v1/projects/theirs/members")
    yield Attack("joining another project", "PUT", "/v1/projects/theirs/members/me", b'{"role": "admin"}', JSON)
    yield Attack("becoming an admin", "PATCH", "/v1/users/mallory", b'{"admin": true}', JSON)
    yield Attack("a key of the admin's", "POST", "/v1/keys", b'{"name": "x", "user": "admin"}', JSON)
    yield Attack("everybody's keys", "GET", "/v1/keys", params={"user": "admin"})
    yield Attack("the audit log", "GET", "/v1/audit")
    yield Attack("one's own limits", "PUT", "/v1/projects/mine", b'{"weight": 1000}', JSON)
    yield Attack("draining a machine", "POST", "/v1/workers/w/drain", b"{}", JSON)
    for header in ("X-Forwarded-User", "X-Remote-User", "X-Original-URL", "X-HTTP-Method-Override"):
        yield Attack(f"audit with {header}", "GET", "/v1/audit", headers={header: "admin"})


def uploads() -> Iterator[Attack]:
    """Files that are no datasets."""
    for name, body in {
        "nothing": b"",
        "a zip": b"PK\x03\x04" + b"\x00" * 100,
        "a pickle": b"\x80\x04\x95\x1e\x00\x00\x00",
        "a Parquet file that is only its ends": b"PAR1" + b"\x00" * 50 + b"PAR1",
        "a Parquet file that promises gigabytes": b"PAR1" + b"\xff" * 64 + b"\xff\xff\xff\x7fPAR1",
        "rows with an empty answer": b'{"question": "2+2?", "answer": ""}\n',
        "an image of the server's": b'{"question": "q", "answer": "a", "image": "/etc/passwd"}\n',
        "an image over HTTP": b'{"question": "q", "answer": "a", "image": "http://169.254.169.254/"}\n',
        "an image that is a script": b'{"question": "q", "answer": "a", "image": "PHNjcmlwdD4="}\n',
        "a line that never ends": b'{"question": "' + b"x" * 300_000,
        "brackets": b"[" * 50_000 + b"\n",
        "an executable": b"\x7fELF" + b"\x00" * 60,
    }.items():
        query = {"name": "data", "project": "mine"}
        yield Attack(
            f"uploading {name}",
            "POST",
            "/v1/datasets/upload",
            body,
            {"Content-Type": "application/octet-stream"},
            query,
        )
    for name in ("../x", "a/b", "<b>", ""):
        yield Attack(
            f"a dataset named {name!r}",
            "POST",
            "/v1/datasets/upload",
            b'{"question": "q", "answer": "a"}\n',
            params={"name": name, "project": "mine"},
        )
    yield Attack(
        "a dataset of another project",
        "POST",
        "/v1/datasets/upload",
        b'{"question": "q", "answer": "a"}\n',
        params={"name": "d", "project": "theirs"},
    )


ALL: tuple[Callable[[], Iterator[Attack]], ...] = (paths, specs, bodies, addresses, doors, uploads)
