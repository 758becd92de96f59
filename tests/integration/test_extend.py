"""The code of docs/how-to/extend.md, installed as a package: it trains, plans and shows in the form."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import install, install_page

ROOT = Path(__file__).parents[2]
SECONDS = 240  # a process that loads torch on a busy machine

SPEC: dict[str, Any] = {
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "rows": 16},
    "algorithm": {"type": "brevity", "mini_batches": 1},
    "rewards": [{"type": "plugin", "name": "org-geometry", "version": "1.2", "time_limit_seconds": 60}],
    "rollout": {"group_size": 2, "max_completion_tokens": 4},
    "prompts_per_step": 2,
    "steps": 2,
    "samples": {"groups": 0},
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a folder of packages beside ours."""
    paths = os.pathsep.join([str(folder), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *command], env=env, cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the page."""
    return install_page(tmp_path_factory.mktemp("site"))


@pytest.mark.slow
def test_the_page_trains(package: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SPEC))
    done = run(package, "-m", "calibrl_core.train", str(tmp_path / "config.json"), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    steps = [event["values"] for event in events if event["type"] == "metrics"]
    assert len(steps) == 2
    for values in steps:
        assert {"words/mean", "reward/plugin-org-geometry", "sampled/reward/mean"} <= values.keys()
        assert values["clip/low_share"] == values["clip/high_share"] == values["clip/dual_share"] == 0
        longest = SPEC["rollout"]["max_completion_tokens"]
        # The verifiers' reward is 0 or 1 per rollout; the rest is 0.2 * (1 - length / longest).
        assert values["reward/mean"] == pytest.approx(
            values["reward/plugin-org-geometry"] + 0.2 * (1 - values["length/mean"] / longest), abs=1e-6
        )
    assert next(event for event in events if event["type"] == "start")["versions"]["plugin-org-geometry"] == "1.2"


SERVICE = """
    import json, sys
    from fastapi.testclient import TestClient
    from api.main import create_app
    from calibrl.schemas import TrainSpec
    from dashboard.forms.schema import Schema
    from jobs.settings import get_settings

    with TestClient(create_app(), headers={"Authorization": "Bearer " + get_settings().need("api_key")}) as client:
        def post(path, **changes):
            answer = client.post(path, json=json.loads(sys.argv[1]) | {"kind": "train", "name": "x"} | changes)
            return answer.status_code, answer.json()

        plan = post("/v1/jobs:plan")
        job = post("/v1/jobs")
        refused = post("/v1/jobs:plan", algorithm={"type": "brevity", "mini_batches": 1, "brevity_weight": 1})
        form = Schema(TrainSpec.model_json_schema())
        fields = form.variants(form.root["properties"]["algorithm"]).get("brevity", {}).get("properties", {})
        print(json.dumps({
            "plan": plan, "job": job, "refused": refused, "fields": list(fields),
            "title": form.titles("algorithm").get("brevity"), "torch": "torch" in sys.modules,
        }))
"""


@pytest.mark.integration
@pytest.mark.usefixtures("database")
def test_the_page_plans_and_shows_in_the_form(package: Path, tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text("\n".join(line[4:] for line in SERVICE.splitlines()))
    done = run(package, str(script), json.dumps(SPEC))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    status, plan = found["plan"]
    assert (status, plan["spec"]["algorithm"]["brevity_weight"]) == (200, 0.2)
    assert plan["memory"]["bytes"] > 0
    status, job = found["job"]
    assert (status, job["spec"]["algorithm"]["type"]) == (201, "brevity")
    status, refused = found["refused"]
    assert status == 422
    assert "algorithm.brevity_weight (1) must be below the sum of the rewards' weights (1): lower it" in str(refused)
    assert "brevity_weight" in found["fields"]
    assert (found["title"], found["torch"]) == ("Brevity", False)


Broken = tuple[dict[str, str], str, str]
BROKEN: dict[str, Broken] = {
    "fails": ({"bad.py": "import no_such_module\n"}, "bad:Bad", "ModuleNotFoundError: No module named"),
    "is_no_algorithm": ({"bad.py": "Bad = 7\n"}, "bad:Bad", "must be a subclass of PolicyGradientSettings"),
    "has_another_type": (
        {"bad.py": "from calibrl_core.algorithms import GRPO\nclass Bad(GRPO): pass\n"},
        "bad:Bad",
        "its class must say type: Literal['bad'] = 'bad'",
    ),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_algorithm_is_reported_in_one_sentence(why: str, tmp_path: Path) -> None:
    files, target, reason = BROKEN[why]
    points = {"calibrl.algorithms": {"bad": target}}
    folder = install(tmp_path, files, {"name": "org-bad", "version": "2", "entry-points": points})
    code = "from calibrl_core.algorithms.registry import ALGORITHMS; print('grpo' in ALGORITHMS, 'bad' in ALGORITHMS)"
    done = run(folder, "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "True False")
    (line,) = done.stderr.splitlines()
    assert line.startswith("The package org-bad 2: calibrl.algorithms 'bad' cannot be used: ")
    assert reason in line


def test_an_algorithm_that_imports_torch_is_named(tmp_path: Path) -> None:
    own = "from typing import Literal\nimport torch\nfrom calibrl_core.algorithms import GRPO\n"
    # An empty `torch` in its place costs no seconds.
    files = {"torch.py": "", "heavy.py": own + "class Heavy(GRPO):\n    type: Literal['heavy'] = 'heavy'\n"}
    points = {"calibrl.algorithms": {"heavy": "heavy:Heavy"}}
    folder = install(tmp_path, files, {"name": "org-heavy", "version": "2", "entry-points": points})
    done = run(folder, "-c", "from calibrl_core.algorithms.registry import ALGORITHMS; print('heavy' in ALGORITHMS)")
    assert done.stdout.strip() == "True"
    assert "The package org-heavy 2: calibrl.algorithms 'heavy' imports torch when loaded" in done.stderr


def test_two_packages_with_one_name_are_both_left_out(tmp_path: Path) -> None:
    code = "from typing import Literal\nfrom calibrl_core.algorithms import GRPO\n"
    code += "class Twin(GRPO):\n    type: Literal['twin'] = 'twin'\n"
    for name in ("one", "two"):
        points = {"calibrl.algorithms": {"twin": f"{name}:Twin"}}
        install(tmp_path, {f"{name}.py": code}, {"name": name, "version": "1", "entry-points": points})
    done = run(tmp_path, "-c", "from calibrl_core.algorithms.registry import ALGORITHMS; print('twin' in ALGORITHMS)")
    assert done.stdout.strip() == "False"
    assert [line.split(": ")[-1] for line in done.stderr.splitlines()] == [
        "two 1 has one of the same name; uninstall one of the two",
        "one 1 has one of the same name; uninstall one of the two",
    ]


FAMILY = """
    from calibrl_core.diagnostics.installed import installed_families
    print([family(None) for family in installed_families() for _ in range(2)])
"""


def test_a_broken_metric_family_loses_only_its_own_metrics(tmp_path: Path) -> None:
    points = {"calibrl.metrics": {"odd": "odd:odd", "even": "odd:even"}}
    files = {"odd.py": "def odd(batch):\n    1 / 0\n\ndef even(batch):\n    return {'reward/mean': 1.0}\n"}
    folder = install(tmp_path, files, {"name": "org-odd", "version": "3", "entry-points": points})
    done = run(folder, "-c", "\n".join(line.strip() for line in FAMILY.splitlines()))
    assert done.stdout.strip() == "[{}, {}, {}, {}]"
    for name, reason in (("odd", "ZeroDivisionError: division by zero"), ("even", "must be named even/")):
        (line,) = [line for line in done.stderr.splitlines() if f"metric family '{name}' failed" in line]
        assert line.startswith("The package org-odd 3: ") and reason in line
