"""Webhooks: real HTTP to a real listener, signed, again where it fails, and never to private addresses unasked."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Semaphore
from typing import Any

import httpx
import pytest

from api.deps import SESSIONS
from calibrl.schemas import JobStatus, Reason
from jobs.repository import webhooks as rows
from jobs.settings import get_settings
from jobs.webhooks import sender
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.mail_server import MailServer, mail_server
from tests.support.rest import named, refused, serving, submitted
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.integration
HOOKS = "/v1/projects/default/webhooks"


class Listener:
    """Records each request and sends the configured answer."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(listener.status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/hook"

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.seen]


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


class Dripping:
    """Sends an answer's head a byte at a time, without end."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.asked = 0
        self.url = f"http://localhost:{self._socket.getsockname()[1]}/slow"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._drip, args=(self._socket.accept()[0],), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        self.asked += 1
        with suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not self._over.wait(0.05):
                connection.sendall(b".")

    def close(self) -> None:
        self._over.set()
        self._socket.close()


@pytest.fixture
def dripping() -> Iterator[Dripping]:
    made = Dripping()
    threading.Thread(target=made.serve, daemon=True).start()
    yield made
    made.close()


@pytest.fixture
def client(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("CALIBRL_WEBHOOKS_TO_PRIVATE", "true")
    monkeypatch.setenv("CALIBRL_DASHBOARD_URL", "https://lab.example.com/")
    get_settings.cache_clear()
    with serving() as client:
        yield client


def deliveries(client: httpx.Client, hook: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{HOOKS}/{hook['id']}/deliveries").json()["data"]
    return found


def test_status_changes_are_sent_and_signed(client: httpx.Client, listener: Listener) -> None:
    hook = client.post(HOOKS, json={"url": listener.url, "events": ["job.queued", "job.failed"]}).json()
    assert hook["secret"].startswith("whsec_")
    job = submitted(client)
    job_steps.finish(job_steps.claim(), JobStatus.FAILED, reason=Reason.CRASHED, message="boom")
    eventually(lambda: len(listener.seen) >= 2)
    assert sorted(listener.types()) == ["job.failed", "job.queued"]
    for headers, body in listener.seen:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(hook["secret"].removeprefix("whsec_"))
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        data = json.loads(body)["data"]
        assert (data["job_id"], data["link"]) == (job["id"], f"https://lab.example.com/job?id={job['id']}")
    failed = next(json.loads(body) for _, body in listener.seen if b"job.failed" in body)
    assert (failed["data"]["reason"], failed["data"]["message"]) == ("crashed", "boom")
    done = eventually(lambda: [each for each in deliveries(client, hook) if each["status"] == "delivered"][1:])
    assert done[0]["response"] == "200" and done[0]["next_at"] is None
    assert "secret" not in client.get(HOOKS).text


@pytest.mark.parametrize("status", [500, 302])
def test_a_refused_message_is_retried_and_redirects_are_not_followed(
    client: httpx.Client, listener: Listener, status: int
) -> None:
    listener.status = status
    hook = client.post(HOOKS, json={"url": listener.url}).json()
    assert client.post(f"{HOOKS}/{hook['id']}/ping").status_code == 202
    (tried,) = eventually(lambda: [each for each in deliveries(client, hook) if each["attempts"]])
    assert (tried["status"], tried["response"]) == ("pending", str(status)) and tried["next_at"]
    listener.status = 200
    job_steps.run("UPDATE deliveries SET next_at = now()")
    eventually(lambda: deliveries(client, hook)[0]["status"] == "delivered")
    ids = {headers["webhook-id"] for headers, _ in listener.seen}
    assert len(listener.seen) == 2 and len(ids) == 1  # the same message: a receiver can detect a repeat


def test_a_message_is_dropped_after_the_last_attempt(client: httpx.Client, listener: Listener) -> None:
    listener.status = 500
    hook = client.post(HOOKS, json={"url": listener.url}).json()
    client.post(f"{HOOKS}/{hook['id']}/ping")
    eventually(lambda: listener.seen)
    job_steps.run("UPDATE deliveries SET attempts = :last, next_at = now()", last=len(sender.RETRY_SECONDS))
    eventually(lambda: deliveries(client, hook)[0]["status"] == "failed")
    assert deliveries(client, hook)[0]["next_at"] is None


def test_a_rolled_back_change_is_not_sent(client: httpx.Client, listener: Listener) -> None:
    hook = client.post(HOOKS, json={"url": listener.url, "events": ["job.queued"]}).json()
    refused(client.post("/v1/jobs", json=submitted(client)["spec"] | {"resources": {"gpus": 9}}), 422)
    assert [each["type"] for each in deliveries(client, hook)] == ["job.queued"]  # of the one that was accepted


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/plain",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://10.0.0.8/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[fe80::1]/x",
        "https://[fec0::1]/x",
        "https://[64:ff9b::a00:5]/x",
        "https://[::127.0.0.1]/x",
        "https://[::ffff:0:7f00:1]/x",
        "https://192.88.99.1/x",
        "https://0.0.0.0/x",
        "https://224.0.0.1/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://user:password@example.com/x",
        "ftp://example.com/x",
        "https://",
        "file:///etc/passwd",
    ],
)
def test_private_and_strange_addresses_are_refused(database: str, url: str) -> None:
    with serving() as client:
        assert named(client.post(HOOKS, json={"url": url})) == ["url"]


def test_an_address_that_has_become_private_gets_nothing(
    client: httpx.Client, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = client.post(HOOKS, json={"url": listener.url}).json()
    monkeypatch.delenv("CALIBRL_WEBHOOKS_TO_PRIVATE")
    get_settings.cache_clear()
    client.post(f"{HOOKS}/{hook['id']}/ping")
    (tried,) = eventually(lambda: [each for each in deliveries(client, hook) if each["attempts"]])
    assert "https" in tried["response"] and listener.seen == []


def test_webhooks_are_for_the_projects_admins(client: httpx.Client, listener: Listener) -> None:
    hook = client.post(HOOKS, json={"url": listener.url}).json()
    client.put("/v1/projects/theirs", json={})
    with ApiUsers(client) as users:
        member = users.add("mem", {"default": "member"})
        other = users.add("other", {"theirs": "admin"})
        refused(users.get(member, HOOKS), 403)
        refused(users.get(other, HOOKS), 404)
        refused(users.get(other, f"/v1/projects/theirs/webhooks/{hook['id']}/deliveries"), 404)
    assert client.delete(f"{HOOKS}/{hook['id']}").status_code == 204
    assert client.get(HOOKS).json()["data"] == []


def test_a_webhook_is_changed_if_its_tag_is_the_same(client: httpx.Client, listener: Listener) -> None:
    made = client.post(HOOKS, json={"url": listener.url}).json()
    path = f"{HOOKS}/{made['id']}"
    tag = client.get(path).headers["etag"]
    changed = client.patch(path, json={"events": ["job.queued"]}, headers={"If-Match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag
    assert changed.json()["events"] == ["job.queued"] and "secret" not in changed.json()
    refused(client.patch(path, json={"events": ["job.failed"]}, headers={"If-Match": tag}), 412)
    assert named(client.patch(path, json={"url": "https://nowhere.invalid/"})) == ["url"]
    assert named(client.patch(path, json={"events": []})) == ["events"]
    submitted(client)
    eventually(lambda: listener.types() == ["job.queued"])
    headers, body = listener.seen[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = hmac.new(base64.b64decode(made["secret"].removeprefix("whsec_")), signed, hashlib.sha256)  # as before
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac.digest()).decode()}"


def test_a_receiver_that_drips_is_cut_off(
    client: httpx.Client, dripping: Dripping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "DEADLINE", 1.0)
    hook = client.post(HOOKS, json={"url": dripping.url}).json()
    client.post(f"{HOOKS}/{hook['id']}/ping")
    (tried,) = eventually(lambda: [each for each in deliveries(client, hook) if each["attempts"]])
    assert tried["response"] == "no answer within 1 s"


def test_a_slow_receiver_holds_no_other(client: httpx.Client, listener: Listener, dripping: Dripping) -> None:
    slow, quick = (client.post(HOOKS, json={"url": each.url}).json() for each in (dripping, listener))
    for _ in range(sender.MAX_SENDING + 5):
        client.post(f"{HOOKS}/{slow['id']}/ping")
    eventually(lambda: dripping.asked == sender.MAX_SENDING_PER_WEBHOOK)
    client.post(f"{HOOKS}/{quick['id']}/ping")
    eventually(lambda: deliveries(client, quick)[0]["status"] == "delivered")
    assert dripping.asked == sender.MAX_SENDING_PER_WEBHOOK  # and no more of the slow one's were begun meanwhile


def test_an_unexpected_error_fails_one_delivery_only(
    client: httpx.Client, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = [client.post(HOOKS, json={"url": f"{listener.url}/{name}"}).json() for name in ("broken", "whole")]
    post = sender._post

    def breaking(url: httpx.URL, *rest: Any) -> Any:
        if url.path.endswith("broken"):
            raise ZeroDivisionError("nobody thought of it")
        return post(url, *rest)

    monkeypatch.setattr(sender, "_post", breaking)
    for hook in hooks:
        client.post(f"{HOOKS}/{hook['id']}/ping")
    (tried,) = eventually(lambda: [each for each in deliveries(client, hooks[0]) if each["attempts"]])
    assert (tried["status"], tried["attempts"]) == ("pending", 1) and "ZeroDivisionError" in tried["response"]
    eventually(lambda: deliveries(client, hooks[1])[0]["status"] == "delivered")


def test_a_message_is_claimed_for_longer_than_sending_takes() -> None:
    """A connection is waited for 10 s, a statement 30 s."""
    assert rows.SENDING_TIME.total_seconds() >= 1.5 * (sender.DEADLINE + sender.WAIT_SECONDS + 10 + 30)


def test_hanging_name_lookups_hold_no_sessions(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are as many hanging names as sessions for requests; other requests are still answered."""
    asked, answered = Semaphore(0), threading.Event()
    look_up = socket.getaddrinfo

    def hanging(host: Any, *rest: Any, **options: Any) -> Any:
        if host != "hooks.example":
            return look_up(host, *rest, **options)
        asked.release()
        answered.wait(LIMIT_SECONDS)
        raise OSError("unknown")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    with ThreadPoolExecutor(SESSIONS) as pool:
        added = [pool.submit(client.post, HOOKS, json={"url": "https://hooks.example/x"}) for _ in range(SESSIONS)]
        try:
            assert all(asked.acquire(timeout=LIMIT_SECONDS) for _ in range(SESSIONS))
            assert client.get("/v1/projects", timeout=LIMIT_SECONDS).status_code == 200
        finally:
            answered.set()
        assert all(named(each.result()) == ["url"] for each in added)


@pytest.mark.parametrize("format", ["slack", "teams", "discord"])
def test_chat_services_get_their_own_bodies(client: httpx.Client, listener: Listener, format: str) -> None:
    added = client.post(HOOKS, json={"url": listener.url, "format": format, "events": ["job.failed"]}).json()
    assert (added["format"], added["secret"]) == (format, None)
    job = submitted(client)
    job_steps.finish(job_steps.claim(), JobStatus.FAILED, reason=Reason.CRASHED, message="<!channel> boom")
    eventually(lambda: listener.seen)
    ((headers, body),) = listener.seen
    link = f"https://lab.example.com/job?id={job['id']}"
    assert "webhook-signature" not in headers and headers["content-type"] == "application/json"
    assert link in body.decode() and "boom" in body.decode()
    fields = {"slack": {"text", "blocks"}, "teams": {"type", "attachments"}, "discord": {"embeds", "allowed_mentions"}}
    assert json.loads(body).keys() == fields[format]
    client.patch(f"{HOOKS}/{added['id']}", json={"url": f"{listener.url}/secret", "events": ["job.succeeded"]})
    client.delete(f"{HOOKS}/{added['id']}")
    removed, changed, *_ = client.get("/v1/audit").json()["data"]
    assert removed["before"]["url"] == "localhost"
    assert "url" not in changed["after"] and listener.url not in client.get("/v1/audit").text


@pytest.fixture
def mails(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with mail_server() as server:
        monkeypatch.setenv("CALIBRL_SMTP_HOST", "localhost")
        monkeypatch.setenv("CALIBRL_SMTP_PORT", str(server.port))
        monkeypatch.setenv("CALIBRL_SMTP_SECURITY", "none")
        monkeypatch.setenv("CALIBRL_MAIL_FROM", "calibrl@lab.example.com")
        monkeypatch.setenv("CALIBRL_MAIL_DOMAINS", "example.com, lab.example.com")
        get_settings.cache_clear()
        yield server


MAILBOX = {"url": "mailto:ada@example.com", "format": "email"}


def test_e_mail_is_sent_to_permitted_domains(client: httpx.Client, mails: MailServer) -> None:
    hook = client.post(HOOKS, json=MAILBOX | {"events": ["job.failed"]}).json()
    job = submitted(client)
    job_steps.finish(job_steps.claim(), JobStatus.FAILED, reason=Reason.CRASHED, message="boom")
    eventually(lambda: deliveries(client, hook) and deliveries(client, hook)[0]["status"] == "delivered")
    (message,) = mails.messages
    assert mails.recipients == ["ada@example.com"]
    assert message["Subject"] == f"{job['name']}: failed (crashed)"
    assert (message["From"], message["To"]) == ("calibrl@lab.example.com", "ada@example.com")
    assert message["Message-ID"] == f"<{deliveries(client, hook)[0]['id']}@lab.example.com>"
    text = message.get_content()
    assert "boom" in text and f"https://lab.example.com/job?id={job['id']}" in text


def test_refused_e_mail_is_sent_again(client: httpx.Client, mails: MailServer) -> None:
    mails.refuses = "550 no such mailbox"
    hook = client.post(HOOKS, json=MAILBOX).json()
    client.post(f"{HOOKS}/{hook['id']}/ping")
    (tried,) = eventually(lambda: [each for each in deliveries(client, hook) if each["attempts"]])
    assert tried["status"] == "pending" and "no such mailbox" in tried["response"] and tried["next_at"]
    mails.refuses = None
    job_steps.run("UPDATE deliveries SET next_at = now()")
    eventually(lambda: deliveries(client, hook)[0]["status"] == "delivered")


def test_a_silent_mail_server_is_cut_off(
    client: httpx.Client, mails: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails.silent = True
    monkeypatch.setattr(sender, "DEADLINE", 1.0)
    hook = client.post(HOOKS, json=MAILBOX).json()
    client.post(f"{HOOKS}/{hook['id']}/ping")
    (tried,) = eventually(lambda: [each for each in deliveries(client, hook) if each["attempts"]])
    assert tried["response"] == "no answer within 1 s"


@pytest.mark.parametrize(
    ("url", "format", "fault"),
    [
        ("mailto:ada@elsewhere.example", "email", "url"),
        ("mailto:ada@example.com.elsewhere.example", "email", "url"),
        ("mailto:ada@example.com,eve@elsewhere.example", "email", "url"),
        ("mailto:ada@example.com?bcc=eve@elsewhere.example", "email", "url"),
        ("mailto:ada@example.com", "slack", "body"),
        ("https://93.184.215.14/x", "email", "body"),
    ],
)
def test_other_mailboxes_and_mixed_formats_are_refused(
    client: httpx.Client, mails: MailServer, url: str, format: str, fault: str
) -> None:
    assert named(client.post(HOOKS, json={"url": url, "format": format})) == [fault]


def test_without_a_mail_server_e_mail_is_refused(client: httpx.Client) -> None:
    answer = client.post(HOOKS, json=MAILBOX)
    assert named(answer) == ["url"] and "CALIBRL_SMTP_HOST" in answer.text
