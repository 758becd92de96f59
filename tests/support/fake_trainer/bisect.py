"""`python -m tests.support.fake_trainer.bisect CONFIG --run-dir DIR`: the result of a bisection."""

from calibrl_core.bisection.settings import BisectConfig
from calibrl_core.report import EventFile
from tests.support.bisections import bisection_result
from tests.support.fake_trainer.run import arguments, run_process


def bisect() -> None:
    text, run_dir = arguments()
    BisectConfig.model_validate_json(text)
    report = EventFile(run_dir)
    report.emit("start", steps_total=1, step=0, versions={}, parameters=1_200_000)
    report.emit("progress", step=1, steps_total=1)
    report.emit("finish", status="succeeded", step=1, result=bisection_result())


def main() -> None:
    run_process(bisect)


if __name__ == "__main__":
    main()
