"""Profiles: services by name. Only the owner can read their keys, and no output shows them."""

from pathlib import Path
from threading import Thread
from uuid import UUID

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from calibrl import cli
from calibrl.client import CalibrlError, Client, profiles
from calibrl.stack.local import LocalStack
from tests.support.waiting import LIMIT_SECONDS

from .conftest import KEY, Service, calibrl, fault, problem

ME = {"user": "ada", "admin": False, "scope": "write", "projects": {"vision": "member"}, "key_id": str(UUID(int=1))}
SECRET = "calibrl_of-the-lab"


@pytest.fixture
def file(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the profiles' file; no other setting names a service."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("CALIBRL_API_URL")
    monkeypatch.delenv("CALIBRL_API_KEY")
    service.on("GET", "/v1/me", ME)
    return tmp_path / "config" / "calibrl" / "profiles.toml"


def add(name: str, url: str, key: str = SECRET, *options: str) -> Result:
    check = () if url.startswith("http://127.0.0.1:") and url != "http://127.0.0.1:9" else ("--no-check",)
    return CliRunner().invoke(cli.app, ["profiles", "add", name, "--url", url, *check, *options], input=f"{key}\n")


def test_a_key_that_the_service_refuses_is_not_saved(service: Service, file: Path) -> None:
    service.on("GET", "/v1/me", problem(401, "Unauthorized", detail="The service does not accept this key."))
    assert "does not accept this key" in fault(add("lab", service.url), 1)
    assert "there is no profile 'lab'; there are none" in fault(calibrl("profiles", "remove", "lab"), 2)
    assert not file.exists()


def test_a_profile_is_added_used_listed_and_removed(service: Service, file: Path) -> None:
    assert "no profiles yet" in calibrl("profiles").stdout
    added = add("lab", service.url + "/")
    assert added.exit_code == 0 and SECRET not in added.output, added.output
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert calibrl("--profile", "lab", "me").stdout.startswith("ada: ")
    assert service.requests[-1].headers["Authorization"] == f"Bearer {SECRET}"
    assert add("other", "https://calibrl.example.com", "another").exit_code == 0
    listed = calibrl("profiles").stdout
    assert f"lab    {service.url}" in listed and "https://calibrl.example.com" in listed and SECRET not in listed
    assert SECRET not in calibrl("profiles", "--json").stdout
    assert "changed lab" in add("lab", service.url, "a new one").stdout
    assert profiles.named("lab").api_key.get_secret_value() == "a new one"
    assert calibrl("profiles", "remove", "lab").exit_code == 0
    assert list(profiles.read_all()) == ["other"]
    assert "there are other" in fault(calibrl("--profile", "lab", "me"), 1)


def test_the_environment_names_one_and_the_option_goes_before_it(
    service: Service, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("lab", service.url)
    add("gone", "http://127.0.0.1:9")
    monkeypatch.setenv("CALIBRL_PROFILE", "lab")
    with Client() as client:
        assert (client.url, client.me().user) == (service.url, "ada")
    with Client("http://127.0.0.1:1", KEY) as client:  # what is given goes before all
        assert client.url == "http://127.0.0.1:1"
    assert calibrl("me").exit_code == 0
    assert "127.0.0.1:9" in fault(calibrl("--profile", "gone", "me"), 1)
    assert profiles.chosen.get() is None  # of that command only
    monkeypatch.setenv("CALIBRL_API_URL", service.url)
    assert "CALIBRL_PROFILE and CALIBRL_API_URL name two services: unset one" in fault(calibrl("me"), 1)
    assert calibrl("--profile", "lab", "me").exit_code == 0


@pytest.mark.parametrize("command", ["up", "demo"])
def test_commands_that_start_a_service_refuse_a_profile(
    file: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(LocalStack, "__enter__", lambda stack: pytest.fail("it was started"))
    said = fault(calibrl("--profile", "lab", command), 2)
    assert f"`calibrl {command}` is about the service on this machine" in said


def test_a_stacks_folder_is_not_a_profile(service: Service, file: Path, tmp_path: Path) -> None:
    add("lab", service.url)
    assert "remove one" in fault(calibrl("--profile", "lab", "me", "--data", tmp_path), 1)


def test_a_file_that_others_can_read_is_refused(service: Service, file: Path) -> None:
    add("lab", service.url)
    file.chmod(0o640)
    for arguments in (["profiles"], ["--profile", "lab", "me"], ["profiles", "remove", "lab"]):
        assert f"run `chmod 600 '{file}'`" in fault(calibrl(*arguments), 1)
    assert "chmod 600" in fault(add("more", service.url), 1)
    file.chmod(0o600)
    assert calibrl("profiles").exit_code == 0


@pytest.mark.parametrize(
    "text",
    ["[lab", "lab = 1", f'[lab]\nurl = "x"\napi_kee = "{SECRET}"', f'["a b"]\nurl = "x"\napi_key = "{SECRET}"'],
)
def test_an_invalid_file_is_one_line_without_its_keys(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True)
    file.touch(mode=0o600)
    file.write_text(text)
    said = fault(calibrl("profiles"), 1)
    assert f"{file} can't be used: " in said and SECRET not in said


@pytest.mark.parametrize(
    ("name", "url", "key", "says"),
    [
        ("a b", "http://x", SECRET, "letters, digits"),
        ("[x]", "http://x", SECRET, "letters, digits"),
        ("lab", "x", SECRET, "'x' is not the URL of a service"),
        ("lab", "ftp://x", SECRET, "is not the URL of a service"),
        ("lab", "http://x", "", "no key was given"),
        ("lab", "http://x", "kéy", "an HTTP header cannot contain"),
    ],
)
def test_invalid_profiles_are_refused(file: Path, name: str, url: str, key: str, says: str) -> None:
    result = add(name, url, key)
    assert result.exit_code != 0 and says in result.stderr and result.stderr.count("\n") == 1
    assert not file.exists()


def test_an_unwritable_folder_is_reported(file: Path) -> None:
    file.parent.parent.write_text("a file")
    assert "can't be" in fault(add("lab", "http://x"), 1)


def test_profiles_added_at_the_same_time_are_all_kept(file: Path) -> None:
    def keep(name: str) -> None:
        with profiles.changing() as known:
            known[name] = profiles.Profile(url=f"http://{name}", api_key=SecretStr(SECRET))

    second = Thread(target=keep, args=("two",))
    with profiles.changing() as known:
        second.start()
        second.join(0.3)
        assert second.is_alive()  # it waits
        known["one"] = profiles.Profile(url="http://one", api_key=SecretStr(SECRET))
    second.join(LIMIT_SECONDS)
    assert sorted(profiles.read_all()) == ["one", "two"]


def test_a_link_to_the_file_stays_one(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles.toml"
    kept.touch(mode=0o600)
    file.parent.mkdir(parents=True)
    file.symlink_to(kept)
    add("lab", "http://x")
    assert file.is_symlink() and "[lab]" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_no_profile_is_one_line_with_the_fix(file: Path) -> None:
    with pytest.raises(
        CalibrlError, match=r"there is no profile 'lab' \(there are none yet\): `calibrl profiles add lab"
    ):
        profiles.named("lab")
