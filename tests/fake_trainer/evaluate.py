"""`python -m tests.fake_trainer.evaluate config.json --run-dir DIR`: progress, and a result for every model and set."""

from pathlib import Path

from calibrl_core.config import EvaluateConfig, PathModel
from calibrl_core.report import EventFile
from tests.fake_trainer.run import arguments, run_process, stop_event


def evaluate() -> None:
    text, run_dir = arguments()
    config = EvaluateConfig.model_validate_json(text)
    stop = stop_event()
    report = EventFile(run_dir)
    total = len(config.models) * len(config.data)
    report.emit("start", steps_total=total, step=0, versions={"fake": "1"}, parameters=1_200_000)
    results = []
    for model in config.models:
        if isinstance(model, PathModel) and not Path(model.path).is_dir():
            report.emit("error", reason="bad_spec", message=f"no model at {model.path}")
            raise SystemExit(1)
        for source in config.data:
            if stop.wait(0.05):
                report.emit("finish", status="stopped", step=len(results), result={})
                return
            results.append({"model": model.model_dump(mode="json"), "data": source.name, "accuracy": 0.5})
            report.emit("progress", step=len(results), steps_total=total)
        report.emit("metrics", step=config.models.index(model), values={f"eval/{config.data[0].name}/accuracy": 0.5})
    report.emit("finish", status="succeeded", step=total, result={"evaluations": results})


def main() -> None:
    run_process(evaluate)


if __name__ == "__main__":
    main()
