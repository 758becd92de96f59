"""Shell completion, the version, and the JSON Schema of the spec."""

from importlib.metadata import version

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from calibrl import cli, presets
from calibrl.schemas.spec_schema import job_spec_schema

from .conftest import DATASET_ID, JOB_ID, Service, calibrl, dataset, fault, job, page, problem, project


def completed(*words: str) -> str:
    """Return the output of the completion script of bash for the last of these words."""
    line = " ".join(["calibrl", *words])
    environment = {"_CALIBRL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    result = CliRunner().invoke(cli.app, prog_name="calibrl", env=environment)
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize(("begun", "found"), [("", ["latest", str(JOB_ID)]), ("lat", ["latest"]), ("zz", [])])
def test_the_shell_completes_job_ids(service: Service, begun: str, found: list[str]) -> None:
    service.on("GET", "/v1/jobs", page(job()))
    assert completed("show", begun).split() == found


def test_the_shell_completes_datasets_projects_and_presets(service: Service) -> None:
    service.on("GET", "/v1/datasets", page(dataset()))
    assert completed("data", "show", "").split() == ["latest", DATASET_ID]
    service.on("GET", "/v1/datasets", page())
    assert completed("data", "show", "lat").split() == ["latest"]
    assert service.requests[-1].query == {"q": "lat", "limit": "30"}
    service.on("GET", "/v1/projects", page(project(slug="vision"), project(slug="other")))
    assert completed("jobs", "--project", "vi").split() == ["vision"]
    assert completed("members", "list", "").split() == ["vision", "other"]
    assert completed("presets", "dr").split() == ["dr_grpo"]


def test_completion_is_silent_if_the_service_fails(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.on("GET", "/v1/jobs", problem(500, "Internal error"))
    assert completed("show", "").split() == []
    monkeypatch.setenv("CALIBRL_API_URL", "http://127.0.0.1:1")
    assert completed("show", "").split() == []


def test_the_version_is_that_of_the_installed_package() -> None:
    assert calibrl("--version").stdout == f"calibrl {version('calibrl')}\n"


@pytest.mark.parametrize("name", presets.names())
def test_presets_match_the_schema_they_name(name: str) -> None:
    text = presets.text(name)
    assert "\n# yaml-language-server: $schema=job-spec.json\n" in text
    jsonschema.validate(yaml.safe_load(text.replace("1e-", "1.0e-")), job_spec_schema())


def test_the_schema_refuses_unknown_fields() -> None:
    spec = yaml.safe_load(presets.text("grpo").replace("1e-", "1.0e-"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec | {"stepz": 5}, job_spec_schema())


def test_the_schema_of_a_field_is_a_table_of_its_fields() -> None:
    shown = " ".join(calibrl("schema", "model.lora").stdout.split())
    assert "model.lora LoraSettings or none null" in shown
    assert "rank integer 16 Rank of each adapter. At least 1, at most 1024." in shown
    shown = " ".join(calibrl("schema", "rewards.0.weight").stdout.split())
    assert "rewards.0.weight number 1.0" in shown
    assert "'model' has no field 'lorra'; did you mean lora?" in fault(calibrl("schema", "model.lorra"), 2)
