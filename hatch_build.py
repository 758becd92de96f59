"""Build hook: puts `alembic.ini` into the service's folder of the wheel. Hatch moves only folders by settings."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ServiceFile(BuildHookInterface):
    """Adds the file to a real wheel only: an editable install would copy it into site-packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"]["alembic.ini"] = "calibrl/_service/alembic.ini"
