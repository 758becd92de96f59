"""`python -m tests.clients`: openapi-generator's clients in four languages, generated from the service's own OpenAPI
document, compiled, and tried on it; exit status 1 if one fails.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.clients.generated import GENERATORS, ClientError, MissingToolError, try_client

ENVIRONMENT = {
    "CALIBRL_WORKER_CPU_SLOTS": "1",
    "CALIBRL_WORKER_GPUS": "none",
    "CALIBRL_QUICK_STARTS": "false",
    "CALIBRL_TRAINER": "tests.support.fake_trainer",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("languages", nargs="*", choices=[[], *GENERATORS], help="only these")
    chosen = parser.parse_args().languages or [*GENERATORS]
    os.environ.update(ENVIRONMENT)
    import httpx

    from calibrl.stack.local import LocalStack

    failed = 0
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        with LocalStack(folder / "stack", dashboard=False) as stack:
            document = folder / "openapi.json"
            document.write_bytes(httpx.get(f"{stack.api_url}/openapi.json", timeout=60.0).content)
            environment = {"CALIBRL_API_URL": stack.api_url, "CALIBRL_API_KEY": stack.api_key}
            for language in chosen:
                try:
                    print(f"{language}: {try_client(language, document, folder, environment).strip()}", flush=True)
                except MissingToolError as error:
                    print(f"{language}: not tried, because {error} is missing", flush=True)
                except ClientError as error:
                    failed += 1
                    print(f"{language}: FAILED: {error}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
