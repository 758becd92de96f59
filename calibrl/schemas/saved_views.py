"""Views of the dashboard that users save by name."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl_core.settings.base import StrictSettings

MOST_VIEWS = 200  # of a user
ViewName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^/\x00-\x1f\x7f]+$")]
PageAddress = Annotated[
    str,
    Field(
        max_length=8000,
        pattern=r"^[a-z]*(\?[!-~]*)?$",
        description="Address of a page below that of the dashboard: `compare?jobs=ID,ID`. Its query has the choices.",
    ),
]


class NewView(StrictSettings):
    """Page to save, by its address."""

    address: PageAddress


class SavedView(Record):
    """A view that a user has saved."""

    name: str
    address: str
    created_at: datetime
