"""Graders of mathematical answers from other packages, behind one function each: `(answer, truth) -> bool`.

Runs in an environment alone (`make bench-verifiers` makes it). `python -P bench/graders.py NAME` reads a JSON array
`[answer, truth]` per line and writes `[verdict, seconds]` per line. Only the standard library and the grader itself
are imported, so that its time is its own.
"""

import json
import logging
import sys
import sysconfig
import time
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

Grader = Callable[[str, str], bool]


def math_verify() -> Grader:
    """Return Math-Verify with the settings of its README; both texts in a box, as a model writes them."""
    library = import_module("math_verify")
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return lambda answer, truth: bool(library.verify(library.parse(_boxed(truth)), library.parse(_boxed(answer))))


def mathruler() -> Grader:
    """Return the grader of EasyR1 and of verl's Geometry3K reward."""
    return _function("mathruler.grader", "grade_answer")


def verl_math() -> Grader:
    """Return verl's reward for the MATH dataset, which is the comparison of Hendrycks et al."""
    return _function("verl.utils.reward_score.math_reward", "is_equiv")


def verl_dapo() -> Grader:
    """Return verl's reward for DAPO's data."""
    module = _load("verl.utils.reward_score.math_dapo")
    return lambda answer, truth: bool(module.is_correct_minerva(f"Answer: {answer}", truth)[0])


def verl_prime() -> Grader:
    """Return verl's reward for PRIME's data. A class that it never uses here would import torch."""
    sys.modules["verl.utils.metric"] = types.SimpleNamespace(Metric=object)  # type: ignore[assignment]
    module = _load("verl.utils.reward_score.prime_math")
    return lambda answer, truth: bool(module.compute_score(_boxed(answer), truth)[0])


def lm_eval_minerva() -> Grader:
    """Return the comparison of the task minerva_math of the LM Evaluation Harness."""
    module = _load("lm_eval.tasks.minerva_math.utils")
    normal = module.normalize_final_answer
    return lambda answer, truth: bool(module.is_equiv(normal(answer), normal(truth)))


def lm_eval_score() -> Grader:
    """Return the comparison of the task score_robustness_math of the LM Evaluation Harness."""
    module = _load("lm_eval.tasks.score.math.math_grader")
    normal = module.normalize_answer_string
    return lambda answer, truth: bool(module.math_equal(normal(answer), normal(truth)))


def evalscope() -> Grader:
    """Return EvalScope's comparison. Only its base class of errors is missing, whose package imports `datasets`."""
    sys.modules["evalscope.api.metric"] = types.SimpleNamespace(  # type: ignore[assignment]
        MetricUnavailableError=RuntimeError
    )
    return _function("evalscope.metrics.math.parser", "math_equal")


def openrlhf() -> Grader:
    """Return OpenRLHF's comparison."""
    return _function("openrlhf.utils.math_utils", "grade_answer")


# Per name: the function above, and the distribution that has it.
GRADERS: dict[str, tuple[Callable[[], Grader], str]] = {
    "Math-Verify": (math_verify, "math-verify"),
    "MathRuler (EasyR1)": (mathruler, "mathruler"),
    "verl, MATH": (verl_math, "verl"),
    "verl, DAPO": (verl_dapo, "verl"),
    "verl, PRIME": (verl_prime, "verl"),
    "LM Evaluation Harness, minerva": (lm_eval_minerva, "lm-eval"),
    "LM Evaluation Harness, score": (lm_eval_score, "lm-eval"),
    "EvalScope": (evalscope, "evalscope"),
    "OpenRLHF": (openrlhf, "openrlhf"),
}


def _boxed(text: str) -> str:
    return rf"\boxed{{{text}}}"


def _function(module: str, name: str) -> Grader:
    function = getattr(_load(module), name)
    return lambda answer, truth: bool(function(answer, truth))


def _load(name: str) -> Any:
    """Return a module without running the packages around it, which would import a whole trainer."""
    parents = name.split(".")[:-1]
    for depth in range(1, len(parents) + 1):
        package = ".".join(parents[:depth])
        folder = Path(sysconfig.get_path("purelib"), *parents[:depth])
        if package not in sys.modules:
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [str(folder)]
    return import_module(name)


def _write(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()


def serve(make: Callable[[], Grader]) -> None:
    """Answer every line of the input with the verdict of a grader."""
    out = sys.stdout
    sys.stdout = sys.stderr  # some graders print
    grade = make()
    grade("1/2", "0.5")  # the first verdict of some graders loads a parser
    _write(out, "ready")
    for line in sys.stdin:
        answer, truth = json.loads(line)
        start = time.perf_counter()
        try:
            right = grade(answer, truth)
        except Exception:  # a crash is no verdict, as in the trainers that use the grader
            right = False
        _write(out, json.dumps([right, time.perf_counter() - start]))


if __name__ == "__main__":
    serve(GRADERS[sys.argv[1]][0])
