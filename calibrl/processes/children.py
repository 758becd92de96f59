"""Child processes that end with their parent. Each child leads its own process group."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from calibrl_core.host.process_limits import REAP_SECONDS

# Variables that children get which run code of users or output of models: those of the system, of Python, and of the
# libraries of a trainer. A variable whose name contains one of SECRET_WORDS is left out all the same.
PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "TMP", "TEMP", "HOSTNAME"),
        *("LD_PRELOAD", "GLIBC_TUNABLES", "CC", "CXX", "CPATH", "LIBRARY_PATH"),
    }
)
PASSED_ON_PREFIXES = (
    *("LANG", "LC_", "LD_LIBRARY_PATH", "PYTHON", "VIRTUAL_ENV", "XDG_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "KMP_", "GOMP_", "RAYON_", "ARROW_", "MALLOC_", "CUDA", "NVIDIA_"),
    *("CUBLAS", "CUDNN_", "NVTE_", "ATEN_", "ONEDNN_", "DNNL_"),  # these change results
    *("NCCL_", "GLOO_", "UCX_", "FI_", "TORCH", "PYTORCH_", "TRITON_", "ACCELERATE_", "FSDP_", "VLLM_", "XLA_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DATASETS_", "TOKENIZERS_", "SAFETENSORS_", "BITSANDBYTES_", "NLTK_"),
)
SECRET_WORDS = frozenset(
    {"TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "KEY", "KEYS"}
)
LAUNCHER = Path(__file__).with_name("launch.py")

Process = subprocess.Popen[bytes]


def environment_without_secrets(also: Collection[str] = ()) -> dict[str, str]:
    """Return the environment for a child that runs code of users or output of models. `also`: further names to pass."""
    return {name: value for name, value in os.environ.items() if name in also or _is_passed_on(name)}


def _is_passed_on(name: str) -> bool:
    if SECRET_WORDS & set(name.upper().split("_")):
        return False
    return name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    user: str = "self",
    stdin: int = subprocess.DEVNULL,
) -> Process:
    """Start a command in its own session, its output appended to `log` and its input empty (or a pipe, as Popen's).

    The child gets `death_signal` when the calling *thread* ends: call from a thread that lives as long as the child.
    `user`: see `calibrl.processes.launch`. A command that cannot run ends at once with its reason in the log.
    """
    launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(death_signal)), user]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*launch, *map(str, command)],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
            cwd=cwd,
        )


def ended(process: Process, timeout: float = 0) -> bool:
    """Return whether the process has ended, after at most `timeout` seconds. Does not reap it."""
    if process.returncode is not None:
        return True
    watch = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(watch)


def ask(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to the process only, which handles its own children."""
    if not ended(process):
        process.send_signal(number)


def kill_group(process: Process) -> None:
    """Kill the process and its group. Does nothing after it has been reaped."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def stop(process: Process, grace: float, first: signal.Signals = signal.SIGTERM) -> int:
    """End a process: send `first` to it, then KILL to its group when it has ended or after `grace` seconds.

    Returns the exit status.

    Raises:
        subprocess.TimeoutExpired: the kernel does not end the process.
    """
    ask(process, first)
    ended(process, grace)
    kill_group(process)
    return process.wait(REAP_SECONDS)
