"""The plan of a spec as the page of a new job shows it."""

from streamlit.testing.v1 import AppTest

from calibrl.schemas import JobPlan
from tests.support.dashboard.pages import finished, html
from tests.support.waiting import LIMIT_SECONDS

PHASES = ["load", "rollout", "reference", "update", "save"]
PLAN = {
    "spec": {},
    "models": [
        {"field": "model", "name": "Qwen/<tiny>", "commit": "a1b2" * 10, "download_bytes": 3 * 2**30, "check": "<ok>"}
    ],
    "data": [
        {
            "field": "data",
            "name": "train",
            "rows": 4096,
            "checked": 2000,
            "with_expert": 2000,
            "with_images": 7,
            "row_format": "verl's format",
            "unused_columns": ["<note>"],
        }
    ],
    "memory": {
        "bytes": 2 * 2**30,
        "on": "host",
        "host_bytes": 2 * 2**30,
        "phases": dict.fromkeys(PHASES, 2**30),
        "parameters": 1_200_000,
        "trained": 1_200_000,
        "parts": [{"name": "weights", "bytes": 4_800_000, "phases": PHASES, "formula": "4 bytes per parameter"}],
        "fits": None,
        "explanation": "about 2 GiB",
        "remedies": [],
    },
    "steps": 1200,
    "queue": {
        "position": 2,
        "reason": "busy",
        "explanation": "waiting for a free <CPU> slot",
        "estimated_start": None,
        "expected_seconds": 125.0,
        "slots": 1,
    },
    "warnings": [{"field": "steps", "message": "40 epochs over <b>64</b> rows"}],
}


def test_a_plan_shows_start_warnings_data_and_memory() -> None:
    def script(plan: str) -> None:
        from calibrl.schemas import JobPlan
        from dashboard.views import plan_summary

        plan_summary.draw(JobPlan.model_validate_json(plan))

    plan = JobPlan.model_validate(PLAN).model_dump_json()
    text = html(finished(AppTest.from_function(script, args=(plan,), default_timeout=LIMIT_SECONDS).run()))
    assert "Queued, position 2" in text
    assert "waiting for a free &lt;CPU&gt; slot · mean duration of recent jobs of this kind 2 min 05 s" in text
    assert ">4,096<" in text and ">2,000<" in text and "7 of 2,000" in text
    assert "verl&#x27;s format; unused columns: &lt;note&gt;" in text
    assert "2.0 GiB" in text and "1,200,000 parameters" in text
    assert "Qwen/&lt;tiny&gt; @ a1b2a1b2a1b2" in text and "3.2 GB, once per machine" in text
    assert "&lt;ok&gt;" in text
    assert "40 epochs over &lt;b&gt;64&lt;/b&gt; rows" in text
