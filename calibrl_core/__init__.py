"""The trainer. A process that a launcher started ends with it from here on, before anything slow is imported."""

from calibrl_core.distributed.launcher import end_with_launcher

# The public modules. All of them import without torch.
__all__ = ["algorithms", "config", "data", "metrics", "report", "verifiers"]

end_with_launcher()
