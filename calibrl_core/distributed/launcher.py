"""Ends a process that `accelerate launch` or `torchrun` started when its launcher ends.

The launcher gives each process a session of its own, so a kill of the launcher or of its process group does not reach
them. They would train on, in parallel with the processes that take over the job.
"""

from pathlib import Path

from calibrl_core.host.parent_death import end_with_parent, is_same_program


def end_with_launcher() -> None:
    """Make the kernel kill this process when its launcher ends. Does nothing without a launcher.

    Call it before slow imports such as torch.

    Raises:
        SystemExit: the launcher has ended already.
    """
    if not _launched(Path("/proc/self")):
        return
    end_with_parent(_belongs_to_launcher, "the launcher that started this process is gone")


def _belongs_to_launcher(process: int) -> bool:
    """Return if a process is the launcher, or a program between the launcher and this process.

    The launcher runs the same Python. A program in between, such as a profiler, has the launcher's mark in its
    environment. A process that adopts orphans has neither.
    """
    return is_same_program(process) or _launched(Path(f"/proc/{process}"))


def _launched(process: Path) -> bool:
    """Return if the environment of a process has the mark of torch's launchers."""
    try:
        return b"TORCHELASTIC_RUN_ID=" in (process / "environ").read_bytes()
    except OSError:  # the process has ended, or belongs to another user
        return False
