"""`python -m tests.fuzz`: schemathesis over every operation of the running service, with a key and without; exit
status 1 if any answer is a 5xx, or not as documented."""

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz import run

ENVIRONMENT = {
    "CALIBRL_WORKER_CPU_SLOTS": "1",
    "CALIBRL_WORKER_GPUS": "none",
    "CALIBRL_QUICK_STARTS": "false",
    "CALIBRL_TRAINER": "tests.support.fake_trainer",
    "CALIBRL_WEBHOOKS_TO_PRIVATE": "true",  # to an address where no server listens
    "CALIBRL_ALLOWED_HUB": "hiyouga/*",  # a plan reads datasets of the hub, which takes longer than a case may
    "CALIBRL_REQUESTS_PER_SECOND": "100000",
    "CALIBRL_REQUESTS_AT_ONCE": "100000",
}
ANSWERED = re.compile(r'"status": (\d{3})')


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument(
        "--examples", type=int, default=60, help="random cases per operation, in addition to boundary cases"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="REGEX", help="only paths that match")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    from calibrl.client import Client
    from calibrl.stack.local import LocalStack
    from tests.fuzz.known import fill

    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        with LocalStack(folder, dashboard=False) as stack:
            with Client(stack.api_url, stack.api_key) as client:
                known = fill(client, folder)
            chosen = {"examples": options.examples, "seed": options.seed, "only": options.only, "known": known}
            with_key = run(stack.api_url, stack.api_key, **chosen)
            print(with_key.output, flush=True)
            # No boundary cases: from the 51st request on, the limit for requests without a key answers.
            few = {**chosen, "examples": max(options.examples // 20, 1), "phases": "examples,fuzzing"}
            without = run(stack.api_url, None, **few)
            print(without.output, flush=True)
        log = (folder / "logs" / "api.log").read_text()
    crashes = log.count("request crashed")
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(Counter(ANSWERED.findall(log)).items()))
    failed = with_key.failed or without.failed or crashes > 0
    print(f"{with_key.cases} cases with a key, {without.cases} without; answers: {statuses}")
    print(f"{crashes} crashes, {'FAILED' if failed else 'all as documented'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
