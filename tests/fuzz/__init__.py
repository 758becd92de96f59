"""Fuzzing of the whole API: requests that its OpenAPI document allows, and requests that it does not allow."""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.waiting import LIMIT_SECONDS

CASES = re.compile(r"(\d[\d,]*) (?:test cases )?generated")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Routes whose answers never end.
ENDLESS = "/stream$"
SETTINGS = Path(__file__).with_name("schemathesis.toml")
PHASES = "examples,coverage,fuzzing"
Known = dict[str, dict[str, list[str]]]


@dataclass(frozen=True)
class Ran:
    """Result of a schemathesis run: success, number of cases, output."""

    failed: bool
    cases: int
    output: str


def run(
    url: str,
    key: str | None,
    *,
    examples: int,
    seed: int = 1,
    only: str | None = None,
    known: Known | None = None,
    phases: str = PHASES,
) -> Ran:
    """Run schemathesis against every operation of the service at `url`, or only paths that match `only`."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run", "--url", url,
        "--checks", CHECKS, "--max-examples", str(examples), "--seed", str(seed), "--exclude-path-regex", ENDLESS,
        "--phases", phases, "--request-timeout", str(LIMIT_SECONDS), "--no-color", "--continue-on-failure",
        "--generation-database", "none",
    ]  # fmt: skip
    if only is not None:
        command += ["--include-path-regex", only]
    if key is not None:
        command += ["--header", f"Authorization: Bearer {key}"]
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "FUZZ_KNOWN": json.dumps(known or {})}
    with tempfile.TemporaryDirectory() as folder:
        schema = (
            Path(folder) / "openapi.json"
        )  # downloaded here, because schemathesis limits the download to 10 seconds
        schema.write_bytes(httpx.get(f"{url}/openapi.json", timeout=LIMIT_SECONDS, trust_env=False).content)
        ran = subprocess.run([*command, str(schema)], capture_output=True, text=True, timeout=3 * 3600, env=env)
    cases = sum(int(found.replace(",", "")) for found in CASES.findall(ran.stdout))
    return Ran(ran.returncode != 0, cases, ran.stdout + ran.stderr)
