"""The trainer. A process that a launcher started ends with it from here on, before anything slow is imported."""

from calibrl_core.distributed.launcher import end_with_launcher

end_with_launcher()
