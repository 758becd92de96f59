"""Signatures of messages according to Standard Webhooks: https://www.standardwebhooks.com."""

import base64
import hashlib
import hmac
import time

PREFIX = "whsec_"  # of a secret


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """Return `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64: https://www.standardwebhooks.com."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def signed_headers(secret: str, id: str, body: bytes) -> dict[str, str]:
    """Return the headers of a message that is sent now."""
    timestamp = int(time.time())
    return {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, id, timestamp, body),
    }
