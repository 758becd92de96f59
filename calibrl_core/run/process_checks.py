"""Settings that a number of processes cannot have. Without torch, so that the service finds them before submission."""

from collections.abc import Iterator

from calibrl_core.config import TrainSettings


def process_problems(settings: TrainSettings, processes: int) -> Iterator[tuple[str, str]]:
    """Yield each setting that does not fit the number of processes, with the reason and the remedy."""
    fewer = "the number of processes (of a job: resources.gpus)"
    if settings.prompts_per_step < processes:
        yield (
            "prompts_per_step",
            f"prompts_per_step ({settings.prompts_per_step}) must not be below the number of processes "
            f"({processes}): each process takes whole groups; raise prompts_per_step, or lower {fewer}",
        )
    if settings.cpu_offload and processes == 1:
        yield "cpu_offload", f"cpu_offload needs several processes: raise {fewer}, or remove cpu_offload"
    if settings.parallel == "fsdp" and processes > 1 and processes % (settings.shard_size or processes):
        yield (
            "shard_size",
            f"shard_size ({settings.shard_size}) must divide the number of processes ({processes}): "
            "change one of them, or remove shard_size",
        )
