"""`python -m tests.support.fake_trainer.audit CONFIG --run-dir DIR`: the result of an audit, and a row to use."""

import json

from calibrl_core.auditing.settings import AuditConfig
from calibrl_core.report import EventFile
from tests.support.audits import audit_result, audit_row
from tests.support.fake_trainer.run import arguments, run_process


def audit() -> None:
    text, run_dir = arguments()
    AuditConfig.model_validate_json(text)
    report = EventFile(run_dir)
    report.emit("start", steps_total=1, step=0, versions={}, parameters=1_200_000)
    row = audit_row(1, "use", 0.75).model_dump(mode="json") | {"rewrite": None}
    (run_dir / "audit.jsonl").write_text(f"{json.dumps(row)}\n")
    report.emit("progress", step=1, steps_total=1)
    report.emit("finish", status="succeeded", step=1, result=audit_result())


def main() -> None:
    run_process(audit)


if __name__ == "__main__":
    main()
