"""Metrics of the dependence of completions on their images."""

from calibrl_core.metrics.base import Metric, MetricFamily

CHANGES = {
    "blank": "with a grey image in place of each image",
    "shuffle": "with the tiles of each image in another order",
    "swap": "with the images of another prompt",
}

IMAGE = MetricFamily(
    "image/",
    tuple(
        Metric(
            f"image/gain_{change}",
            "nats/completion",
            f"Log-probability of a completion with its images, minus that {changed}.",
            "Near 0: the policy writes the same without the content of the image.",
            label=f"image gain ({change})",
        )
        for change, changed in CHANGES.items()
    ),
    "Measured every `diagnostics.images_every` steps, on up to 8 groups per process whose prompts have images: those "
    "with the largest spread of rewards. `swap` estimates a divergence between the policy with its own and with "
    "another image, whose expected value is never below 0.",
)
