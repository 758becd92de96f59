"""Program of two processes with sharded weights, which `bench.planned_memory` starts.

`python -m bench.sharded_memory FOLDER` measures the job in the folder, and writes the peaks of the first process there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.planned_memory import PEAKS, SPEC, measured
from calibrl.schemas import TrainSpec, job_spec_adapter
from calibrl_core.distributed.process_group import join_process_group


def main(folder: Path) -> None:
    spec = job_spec_adapter.validate_json((folder / SPEC).read_text())
    assert isinstance(spec, TrainSpec)
    with join_process_group() as ranks:
        found = measured(spec, folder, ranks)
    if ranks.first:
        (folder / PEAKS).write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
