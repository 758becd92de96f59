"""Optional parts of the package: which commands need them, and how to install them."""

from importlib.util import find_spec

# One module per distribution that the extra adds, as far as its commands import it.
MODULES = {
    "local": ("alembic", "celery", "fastapi", "plotly", "psycopg", "redis", "sqlalchemy", "streamlit", "torch"),
    "mlflow": ("mlflow",),
    "studies": ("numpy",),
    "trainer": ("math_verify",),
}


class MissingExtraError(Exception):
    """An optional part of the package is not installed. The message is one line with the `pip` command."""


def require(extra: str, user: str) -> None:
    """Check, without importing anything, that an extra is installed. `user` names the command in the message.

    Raises:
        MissingExtraError: a module of the extra is missing.
    """
    if missing := [module for module in MODULES[extra] if find_spec(module) is None]:
        raise MissingExtraError(f"{user} needs {', '.join(missing)}: pip install 'calibrl[{extra}]'")
