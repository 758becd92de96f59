"""Location of the service's code: the packages `api`, `jobs`, `worker`, `dashboard` and `migrations`."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def service_folder() -> Path:
    """Return the folder that the service's processes import from.

    In a checkout it is the root; in an installed wheel it is a folder inside the package `calibrl`, because names such
    as `api` and `worker` must not become top-level packages of site-packages.
    """
    inside = PACKAGE / "_service"
    return inside if inside.is_dir() else PACKAGE.parent
