import pytest
from jsonschema import Draft202012Validator

from api import openai, plain_schemas
from api.errors import Problem
from api.examples import JOB_SPECS
from api.main import app
from calibrl.schemas import job_spec_adapter
from calibrl_core.metrics import FAMILIES


@pytest.mark.parametrize("name", ["train", "evaluate", "audit"])
def test_the_examples_are_specs(name: str) -> None:
    assert job_spec_adapter.validate_python(JOB_SPECS[name]["value"]).kind == name
    body = app.openapi()["paths"]["/v1/jobs"]["post"]["requestBody"]
    assert body["content"]["application/json"]["examples"][name]["value"] == JOB_SPECS[name]["value"]


def test_every_endpoint_documents_its_errors_and_its_key() -> None:
    document = app.openapi()
    assert document["components"]["schemas"]["Problem"]["properties"].keys() == Problem.model_fields.keys()
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    of_openai = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation["responses"]["default"]["content"]
            assert content == (of_openai if openai.speaks(path) else problem)
            assert ("security" in operation) == (path.startswith("/v1/") or path == "/metrics")


def test_every_parameter_has_a_description() -> None:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            without = [one["name"] for one in operation.get("parameters", ()) if not one.get("description")]
            assert without == [], f"{method} {path}"


def test_operation_ids_are_short_and_unique() -> None:
    operations = [operation for path in app.openapi()["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert {"submit_job", "list_jobs", "post_study"} <= set(ids)


def test_no_field_is_always_null() -> None:
    schemas = app.openapi()["components"]["schemas"]
    fields = {
        f"{name}.{field}": one
        for name, schema in schemas.items()
        for field, one in schema.get("properties", {}).items()
    }
    assert [name for name, one in fields.items() if one.get("type") == "null"] == []  # generators of clients fail


def test_schemas_are_those_that_generators_can_read() -> None:
    schemas = app.openapi()["components"]["schemas"]
    parts = [part for schema in schemas.values() for part in plain_schemas._parts(schema)]
    assert [part for part in parts if isinstance(part.get("const"), bool)] == []
    for part in parts:
        choices = [one for one in part.get("anyOf") or part.get("oneOf") or () if one.get("type") != "null"]
        assert len(choices) < 2 or "array" not in [one.get("type") for one in choices]
        assert "oneOf" not in part.get("items", {})
        assert part.get("default") is None or len(choices) < 2
    large = [part for part in parts if part.get("type") == "integer" and part.get("maximum", 2**31) > 2**31 - 1]
    assert len(large) > 100 and {part.get("format") for part in large} == {"int64"}
    assert not [name for name in schemas if name.startswith("New") and name[3:] in schemas]
    assert schemas["TrainSpec"]["properties"]["data"]["description"].endswith(
        "One of: BuiltinData, FileData, HubData, KnownData, array."
    )
    assert schemas["TrainSpec"]["properties"]["rewards"]["items"] == {"$ref": "#/components/schemas/AnyReward"}
    assert len(schemas["AnyReward"]["oneOf"]) == 13


def test_every_json_answer_has_a_valid_example() -> None:
    document = app.openapi()
    found = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/json")
                if status.startswith("2") and content and content["schema"]:
                    whole = {**content["schema"], "components": document["components"]}
                    faults = [error.message for error in Draft202012Validator(whole).iter_errors(content["example"])]
                    assert faults == [], f"{method} {path}"
                    found += 1
    assert found > 100


@pytest.mark.parametrize("path", ["/v1/jobs/{job_id}/metrics", "/v1/metrics"])
def test_the_names_of_metrics_are_documented_by_the_registry(path: str) -> None:
    parameters = app.openapi()["paths"][path]["get"]["parameters"]
    (text,) = [parameter["description"] for parameter in parameters if parameter["name"] == "names"]
    assert [family.title for family in FAMILIES if family.title not in text] == []
