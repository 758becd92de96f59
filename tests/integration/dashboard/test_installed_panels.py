"""Panels of other packages, on the page of a job."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.panels.installed import installed_panels
from tests.support.dashboard.pages import charts, html, job_page
from tests.support.dashboard.world import World
from tests.support.packages import install, install_page

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def fresh_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Look for packages in the test's folder too, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    installed_panels.cache_clear()
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if name.partition(".")[0] in ("org_calibrl", "odd"):
            del sys.modules[name]
    installed_panels.cache_clear()


def test_the_panel_of_the_docs_draws_its_metric(world: World, tmp_path: Path) -> None:
    install_page(tmp_path)
    job = world.add()
    world.measure(job, range(1, 4), {"words/mean": 7.0})
    assert "Words of completions" not in html(job_page(job.id))  # the overview stays the first panel
    app = job_page(job.id, "Words of completions")
    assert "Words per completion" in html(app)
    assert [trace["name"] for trace in charts(app)["words"]["data"]] == ["mean (each step)", "mean"]


def test_a_panel_that_fails_names_its_package(world: World, tmp_path: Path) -> None:
    points = {"calibrl.panels": {"odd": "odd:draw"}}
    files = {"odd.py": "def draw(job):\n    raise LookupError('<b>nothing</b>')\n"}
    install(tmp_path, files, {"name": "org-odd", "version": "3", "entry-points": points})
    job = world.add()
    text = html(job_page(job.id, "Odd"))
    assert "Error in the package org-odd 3: LookupError: &lt;b&gt;nothing" in text


def test_an_entry_point_without_a_function_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = {"calibrl.panels": {"odd": "odd:SIZE", "gone": "no_such_module:draw"}}
    install(tmp_path, {"odd.py": "SIZE = 1\n"}, {"name": "org-odd", "version": "3", "entry-points": points})
    assert installed_panels() == {}
    gone, odd = caplog.messages
    assert gone.startswith("The package org-odd 3: calibrl.panels 'gone' cannot be used: ModuleNotFoundError")
    assert odd == "The package org-odd 3: calibrl.panels 'odd' cannot be used: odd:SIZE must be a function of one Job"
