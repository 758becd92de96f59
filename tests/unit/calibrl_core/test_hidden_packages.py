"""Packages that a library shall not find when it looks for them."""

from importlib.util import find_spec

from calibrl_core.models.hidden_packages import hide


def test_a_package_is_hidden_only_from_the_check() -> None:
    found = []

    def is_available() -> bool:
        found.append(find_spec("wave"))
        return found[-1] is not None

    hide("wave", is_available)
    assert found == [None]
    assert find_spec("wave") is not None
