"""E-mail for messages, over the mail server of the service's settings."""

import smtplib
import socket
import ssl
import threading
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate
from uuid import UUID

from calibrl_core.host.public_addresses import Refused
from jobs.settings import get_settings
from jobs.webhooks.notices import PlainMessage

SCHEME = "mailto:"


def problem(url: str) -> str | None:
    """Return why messages cannot be sent to a `mailto:` URL, or None if they can."""
    settings = get_settings()
    domain = url.rpartition("@")[2].lower()
    if settings.smtp_host is None or settings.mail_from is None:
        return "this service sends no e-mail; CALIBRL_SMTP_HOST and CALIBRL_MAIL_FROM configure it"
    allowed = [one.strip().lower() for one in settings.mail_domains.split(",")]
    if domain not in filter(None, allowed):
        return f"{domain} is not among the domains to which the service sends e-mail (CALIBRL_MAIL_DOMAINS)"
    return None


def send(url: str, notice: PlainMessage, message_id: UUID, seconds: float) -> str:
    """Send an e-mail within `seconds`, and return what the server answered.

    Raises:
        Refused: e-mail to this address is not permitted.
        TimeoutError: the server did not take the message in time.
        OSError: the server could not be reached.
        smtplib.SMTPException: the server refused the message.
    """
    if wrong := problem(url):
        raise Refused(wrong)
    settings = get_settings()
    message = _message(url.removeprefix(SCHEME), str(settings.mail_from), notice, message_id)
    context = ssl.create_default_context()
    tls = settings.smtp_security == "tls"
    server = smtplib.SMTP_SSL(timeout=seconds, context=context) if tls else smtplib.SMTP(timeout=seconds)
    # The limit of a socket restarts with every byte. This one is for everything.
    expired = threading.Event()
    limit = threading.Timer(seconds, _abandon, (server, expired))
    limit.daemon = True
    limit.start()
    try:
        return _converse(server, context, message)
    except Exception as error:
        if expired.is_set():
            raise TimeoutError from error
        raise
    finally:
        limit.cancel()
        server.close()


def _converse(server: smtplib.SMTP, context: ssl.SSLContext, message: EmailMessage) -> str:
    settings = get_settings()
    host = str(settings.smtp_host)
    server._host = host  # type: ignore[attr-defined]  # `connect` does not set the name that TLS verifies
    server.connect(host, settings.smtp_port)
    if settings.smtp_security == "starttls":
        server.starttls(context=context)
    encrypted = settings.smtp_security != "none"
    if encrypted and settings.smtp_user is not None and settings.smtp_password is not None:
        server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
    server.send_message(message)
    return "250"


def _abandon(server: smtplib.SMTP, expired: threading.Event) -> None:
    expired.set()
    if server.sock is not None:
        with suppress(OSError):
            server.sock.shutdown(socket.SHUT_RDWR)  # unlike `close`, it ends a read that waits in another thread


def _message(to: str, sender: str, notice: PlainMessage, message_id: UUID) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = notice.title.replace("\n", " ").replace("\t", " ")
    message["From"], message["To"] = sender, to
    message["Date"] = formatdate()
    # A message that is sent again keeps its id, so that the mail server or the reader can drop the second one.
    message["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2].rstrip('>')}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n\n".join(filter(None, (notice.text, notice.link))) + "\n")
    return message
