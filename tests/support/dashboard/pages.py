"""Pages of the dashboard in Streamlit's test runner, and what they show."""

import json
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

import dashboard
from tests.support.waiting import LIMIT_SECONDS

ON_EVERY_PAGE = ("link_clicks", "notifications")  # components
NAVIGATION = Path(dashboard.__file__).with_name("navigation.py")
# Each `AppTest` reads the metadata of all installed packages, which is most of a test's time. None changes in between.
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)

RENAMED = ("datasets", "new_job")  # their addresses differ from their names: the test runner knows these after a run


def open_page(name: str, **query: str | None) -> AppTest:
    """Open a page by the name of its module, at the address with this query (None: left out)."""
    app = AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS)
    if name in RENAMED:
        app.run()
    app.switch_page(f"app_pages/{name}.py")
    for field, value in query.items():
        if value is not None:
            app.query_params[field] = value
    return finished(app.run())


def forget_reads() -> None:
    """Let the next page read all again, as it does after the seconds for which reads are kept."""
    streamlit.cache_resource.clear()


def jobs_page() -> AppTest:
    """Open the list of jobs, which is the first page."""
    return finished(AppTest.from_file(NAVIGATION, default_timeout=LIMIT_SECONDS).run())


def job_page(job_id: object, panel: str | None = None, **query: str) -> AppTest:
    """Open the page of a job at a panel."""
    return open_page("job", id=str(job_id), panel=panel, **query)


def finished(app: AppTest) -> AppTest:
    """Return the page once it is clear that its last run raised nothing."""
    assert not app.exception, app.exception[0].stack_trace
    return app


def press(app: AppTest, label: str) -> AppTest:
    """Press the button of this label."""
    next(button for button in app.button if button.label == label).click()
    return finished(app.run())


def html(app: AppTest) -> str:
    """Return the HTML of the page."""
    return "\n".join(element.proto.body for element in app.get("html"))


def components(app: AppTest) -> list[Any]:
    """Return the own components of the page, without those of every page."""
    return [element.proto for element in app.get("bidi_component") if element.proto.component_name not in ON_EVERY_PAGE]


def charts(app: AppTest) -> dict[str, Any]:
    """Return the figures of the page by name."""
    found = [json.loads(component.json) for component in components(app)]
    return {data["name"]: json.loads(data["figure"]) for data in found}


def paths(requests: list[str]) -> set[str]:
    """Return the last word of each requested address."""
    return {urlsplit(request).path.rpartition("/")[2] for request in requests}
