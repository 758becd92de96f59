"""Views of the dashboard that the user has saved by name."""

from calibrl.client.connection import Connection, path_of
from calibrl.schemas import NewView, Page, SavedView


class ViewRequests(Connection):
    """Saved views of the dashboard."""

    def views(self) -> list[SavedView]:
        """Return your saved views, by name."""
        return self._get(Page[SavedView], "/v1/views").data

    def put_view(self, name: str, address: str) -> SavedView:
        """Save the address of a page, such as `compare?jobs=ID,ID`, under a name. A view of this name is replaced."""
        return self._send("PUT", SavedView, path_of("views", name), NewView(address=address))

    def remove_view(self, name: str) -> None:
        """Remove one of your saved views."""
        self._delete(path_of("views", name))
