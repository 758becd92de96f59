"""`calibrl demo --exit --json --compare`, with only a few steps per job."""

import json
from pathlib import Path
from typing import Any

import pytest

from calibrl.commands import demo
from jobs.settings import get_settings
from tests.support.processes import processes_with

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the jobs in the demo's specs."""
    validation = {"data": {"builtin": "digits", "split": "validation", "rows": 4}, "every_steps": 2, "samples": 2}
    training = {"steps": 2, "prompts_per_step": 2, "validation": validation}
    held_out = {"data": [{"builtin": "digits", "split": "test", "rows": 4}]}
    shortened = {"warmup_spec": training, "reinforcement_spec": training, "evaluation_spec": held_out}
    for name, changes in shortened.items():
        whole = getattr(demo, name)

        def cut(*given: Any, whole: Any = whole, changes: Any = changes) -> Any:
            return whole(*given) | changes

        monkeypatch.setattr(demo, name, cut)
    for name in ("DATABASE_URL", "REDIS_URL", "CALIBRL_API_KEY", "CALIBRL_API_URL", "CALIBRL_TRAINER"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()


@pytest.mark.usefixtures("short")
def test_the_demo_ends_by_itself_with_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = demo.run(
        tmp_path / "a demo",
        exit_when_done=True,
        as_json=True,
        compare=True,
        seed=0,
        api_port=None,
        dashboard_port=None,
    )
    output = capsys.readouterr()
    assert code == 0, output.err
    found = json.loads(output.out.splitlines()[-1])
    figures = {f"{name}_{stage}" for name in ("accuracy", "greedy", "pass_at_8") for stage in demo.STAGES}
    assert found.keys() >= figures | {"seconds", "dashboard_url", "jobs", "calibrl_against_grpo"}
    assert found["jobs"].keys() == {"warmup", "calibrl", "grpo", "evaluation"}
    assert found["calibrl_against_grpo"]["verdict"]
    assert found["dashboard_url"] in output.err
    assert processes_with(tmp_path) == []
