from pathlib import Path

import pytest

from calibrl.settings import SettingsError
from jobs.settings import Settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "CALIBRL_API_KEY", "CALIBRL_DATA_DIR", "CALIBRL_LEASE_SECONDS"):
        monkeypatch.delenv(name, raising=False)


def test_a_client_needs_no_addresses() -> None:
    settings = Settings.read()
    assert settings.database_url is None
    assert settings.api_url == "http://127.0.0.1:8000"
    assert settings.data_dir == Path.home() / ".calibrl"


@pytest.mark.parametrize(
    ("name", "variable"), [("database_url", "DATABASE_URL"), ("redis_url", "REDIS_URL"), ("api_key", "CALIBRL_API_KEY")]
)
def test_missing_settings_of_a_process_are_named(name: str, variable: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is not set$"):
        Settings.read().need(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_any_postgres_address_gets_the_driver(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://me:pw@host:5432/base")
    assert Settings.read().database_url == "postgresql+psycopg://me:pw@host:5432/base"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CALIBRL_LEASE_SECONDS", "soon"),
        ("CALIBRL_LEASE_SECONDS", "0"),
        ("CALIBRL_API_KEY", "a-guessable-key"),
        ("CALIBRL_TRAINER", "-m"),
        ("CALIBRL_SANDBOX_PACKAGES", "numpy,,sympy"),
    ],
)
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: "):
        Settings.read()


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hush@host/base")
    monkeypatch.setenv("REDIS_URL", "redis://:hush@host/0")
    monkeypatch.setenv("CALIBRL_API_KEY", "hush" * 8)
    settings = Settings.read()
    assert "hush" not in repr(settings)
    assert settings.need("api_key") == "hush" * 8


def test_the_data_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALIBRL_DATA_DIR", "here")
    assert Settings.read().data_dir == tmp_path / "here"
