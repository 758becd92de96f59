"""`python -m tests.fuzz`: schemathesis over every operation of the running service, with a key and without; exit
status 1 if any answer is a 5xx, or not as documented."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = re.compile(r"(\d[\d,]*) (?:test cases )?generated")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Answers that never end, so that there is nothing to wait for.
ENDLESS = "/stream$"
ENVIRONMENT = {
    "CALIBRL_WORKER_CPU_SLOTS": "0",  # jobs are accepted, none is run
    "CALIBRL_WORKER_GPUS": "none",
    "CALIBRL_QUICK_STARTS": "false",
    "CALIBRL_REQUESTS_PER_SECOND": "100000",
    "CALIBRL_REQUESTS_AT_ONCE": "100000",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--examples", type=int, default=400, help="of each operation, about, with a key")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    from calibrl.local import LocalStack

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        with LocalStack(Path(folder), dashboard=False) as stack:
            with_key = _run(stack.api_url, stack.api_key, options.examples, options.seed)
            without = _run(stack.api_url, None, max(options.examples // 20, 1), options.seed)
        log = (Path(folder) / "logs" / "api.log").read_text()
    crashes = log.count("request crashed")
    cases = with_key[1] + without[1]
    print(f"{cases} cases, {crashes} crashes, {'as documented' if with_key[0] + without[0] == 0 else 'FAILED'}")
    sys.exit(bool(with_key[0] or without[0] or crashes))


def _run(url: str, key: str | None, examples: int, seed: int) -> tuple[int, int]:
    """Exit status and number of cases of one run."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
        "--checks", CHECKS, "--max-examples", str(examples), "--seed", str(seed), "--exclude-path-regex", ENDLESS,
        "--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--no-color",
        "--generation-database", "none",
    ]  # fmt: skip
    if key is not None:
        command += ["--header", f"Authorization: Bearer {key}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=3 * 3600)
    print(ran.stdout[-6000:], ran.stderr[-2000:], flush=True)
    return ran.returncode, sum(int(found.replace(",", "")) for found in CASES.findall(ran.stdout))


if __name__ == "__main__":
    main()
