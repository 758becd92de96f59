"""A mail server that keeps what it gets, on the standard library alone: it speaks as much SMTP as `smtplib` needs."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage


class MailServer(socketserver.ThreadingTCPServer):
    """`refuses`: the answer to every recipient, such as `550 no`. `silent`: it takes connections and says nothing."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.messages: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.refuses: str | None = None
        self.silent = False
        self.over = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Conversation(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        if self.server.silent:
            self.server.over.wait()
            return
        self._say("220 ready")
        for line in self.rfile:
            command = line.decode().strip()
            if command == "QUIT":
                return
            self._say(self._answer(command))

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def _answer(self, command: str) -> str:
        if command.upper().startswith("RCPT"):
            self.server.recipients.append(command.partition("<")[2].partition(">")[0])
            return self.server.refuses or "250 ok"
        if command.upper() == "DATA":
            self._say("354 go on")
            lines = iter(self.rfile.readline, b".\r\n")
            content = b"".join(line.removeprefix(b".") if line.startswith(b"..") else line for line in lines)
            self.server.messages.append(message_from_bytes(content, policy=policy.default))
        return "250 ok"


@contextmanager
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()
