"""Checks that the URL of a webhook leads to public addresses, or to a permitted mailbox."""

import httpx

from calibrl_core.host.public_addresses import Refused, is_public, look_up
from jobs.settings import get_settings
from jobs.webhooks import mail

LOOKUP_SECONDS = 5.0  # for requests; a message has its own deadline


def problem(url: str) -> str | None:
    """Return why messages cannot be sent to a URL, or None if they can. Looks up its host."""
    if url.startswith(mail.SCHEME):
        return mail.problem(url)
    try:
        public_address(httpx.URL(url), LOOKUP_SECONDS)
    except (Refused, httpx.InvalidURL) as error:
        return str(error)
    return None


def public_address(url: httpx.URL, seconds: float) -> str:
    """Return an address of the URL's host to which messages can be sent, found within `seconds`.

    Raises:
        Refused: there is none.
    """
    private_too = get_settings().webhooks_to_private
    if url.scheme != "https" and not private_too:
        raise Refused("the URL must begin with https://")
    addresses = look_up(url.host, url.port or 443, seconds)
    # Check all addresses: the connection can use any of them.
    if not private_too and not all(is_public(address) for address in addresses):
        raise Refused(f"{url.host} has an address that is not public; CALIBRL_WEBHOOKS_TO_PRIVATE=true allows it")
    return addresses[0]
