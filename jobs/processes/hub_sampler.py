"""Reads the first rows of a dataset of the hub.

    python -m jobs.processes.hub_sampler SOURCE SECONDS

SOURCE is the dataset as JSON. After about SECONDS the rows read so far are written to ROWS in the working folder.
OUTCOME says what they are, or why there are none.
"""

import json
import sys
import time
from pathlib import Path

from calibrl_core.data.hub_head import hub_head
from calibrl_core.data.schema import DataError, HubData

ROWS, OUTCOME = "rows.parquet", "outcome.json"


def main(source: str, seconds: str) -> None:
    """Write the two files."""
    import pyarrow.parquet as parquet

    until = time.monotonic() + float(seconds)
    try:
        table, complete = hub_head(HubData.model_validate_json(source), until)
        parquet.write_table(table, ROWS)
        outcome = {"rows": table.num_rows, "complete": complete}
    except DataError as error:
        outcome = {"fault": str(error)}
    Path(OUTCOME).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
