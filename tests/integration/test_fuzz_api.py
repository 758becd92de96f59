"""A short run of what `make fuzz-api` does at length: schemathesis over every operation, with a key and without."""

import re

import pytest

from jobs.settings import get_settings
from tests.fuzz import run
from tests.support import API_KEY
from tests.support.rest import serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]
OPERATIONS = re.compile(r"Operations: +(\d+) selected / (\d+) total")


@pytest.mark.parametrize("key", [API_KEY, None], ids=["with a key", "without"])
def test_every_answer_is_as_documented(database: str, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    for name in ("PER_SECOND", "AT_ONCE"):
        monkeypatch.setenv(f"CALIBRL_REQUESTS_{name}", "100000")
    get_settings.cache_clear()
    with serving() as client:
        ran = run(str(client.base_url).rstrip("/"), key, examples=2, phases="examples,fuzzing")
        for path in ("/v1/me", "/v1/projects/default", "/v1/users/admin"):
            assert client.get(path).status_code == 200, f"a case has removed {path}"
    found = OPERATIONS.search(ran.output)
    assert found is not None and int(found[1]) == int(found[2]) - 2, ran.output  # all but the two endless ones
    print(f"{ran.cases} cases")
    assert ran.cases >= int(found[1])
    assert not ran.failed, ran.output
