"""`python -m tests.support.fake_trainer.what_if CONFIG --run-dir DIR`: the result of a what-if."""

from calibrl_core.report import EventFile
from calibrl_core.variants.settings import WhatIfConfig
from tests.support.fake_trainer.run import arguments, run_process
from tests.support.what_ifs import what_if_result


def what_if() -> None:
    text, run_dir = arguments()
    WhatIfConfig.model_validate_json(text)
    report = EventFile(run_dir)
    report.emit("start", steps_total=1, step=0, versions={}, parameters=1_200_000)
    report.emit("progress", step=1, steps_total=1)
    report.emit("finish", status="succeeded", step=1, result=what_if_result())


def main() -> None:
    run_process(what_if)


if __name__ == "__main__":
    main()
