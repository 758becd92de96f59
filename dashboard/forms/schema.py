"""A pydantic JSON schema for forms: references resolved, variants by name, labels, defaults left out."""

from collections.abc import Mapping
from typing import Any

Node = Mapping[str, Any]
WORDS = {
    "builtin": "built-in",
    "coef": "coefficient",
    "gpu": "GPU",
    "gpus": "GPUs",
    "kl": "KL",
    "lora": "LoRA",
    "lr": "learning rate",
    "std": "std",
    "utilisation": "utilization",
    "normalise": "normalize",
    "vllm": "vLLM",
}
# Labels of fields whose name alone does not say enough, by the end of their path.
LABELS = {
    "validation.every_steps": "Validate every N steps",
    "checkpoints.every_steps": "Save every N steps",
    "samples.every_steps": "Log samples every N steps",
    "samples.groups": "Groups per sample",
    "validation.samples": "Samples per prompt",
    "rollout.samples": "Samples per prompt",
    "max_nll": "Max NLL of an expert (nats/token)",
    "rewrite": "Restate experts that are far",
    "validation.stop_at_accuracy": "Early-stop accuracy",
    "before_training": "Validate before training",
    "top_k": "Top-k",
    "top_p": "Top-p",
    "min_p": "Min-p",
    "stop": "Stop strings",
    "checkpoints.keep_last": "Keep last N checkpoints",
    "checkpoints.keep_best": "Keep best by metric",
    "checkpoints.max_gigabytes": "Checkpoint storage limit (GB)",
    "samples.max_megabytes": "Sample storage limit (MB)",
    "prompts.max_tokens": "Max prompt tokens",
    "prompts.max_images": "Max images per prompt",
    "prompts.too_long": "Over-length prompts",
    "prompts.system": "System message",
    "prompts.chat_template_kwargs": "Chat template variables",
    "prompts.max_pixels": "Max pixels per image",
    "prompts.min_pixels": "Min pixels per image",
    "max_grad_norm": "Max gradient norm",
    "max_resamples": "Max resampling rounds",
    "prompts_per_step": "Prompts per step",
    "unearnable": "Unearnable rows",
    "rows": "Max rows",
    "resources.labels": "Required machine labels",
    "labels": "Job labels",
    "timeout_seconds": "Timeout (s)",
    "time_limit_seconds": "Time limit (s)",
    "no_progress_seconds": "No-progress timeout (s)",
    "min_gpu_utilisation": "Min GPU utilization (%)",
    "gpu_idle_seconds": "GPU utilization window (s)",
    "health.entropy_steps": "Entropy window (steps)",
    "health.entropy_low": "Collapse threshold (nats/token)",
    "health.entropy_fall": "Collapse threshold (share of initial)",
    "health.entropy_high": "Explosion threshold (nats/token)",
    "health.entropy_rise": "Explosion threshold (× initial)",
    "health.truncated_steps": "Truncation window (steps)",
    "health.truncated_share": "Truncation threshold (share)",
    "health.idle_steps": "No-advantage window (steps)",
    "health.drift_steps": "Reward-hacking window (steps)",
    "health.drift_reward": "Reward-hacking reward rise (std)",
    "health.drift_accuracy": "Reward-hacking accuracy drop",
    "health.length_steps": "Length window (steps)",
    "health.length_rise": "Length explosion (× length at best accuracy)",
    "health.spike_steps": "Gradient-spike window (steps)",
    "health.spike_rise": "Gradient spike (× median)",
    "health.spike_count": "Gradient spikes",
    "health.mismatch_steps": "Sampler-mismatch window (steps)",
    "health.mismatch_kl": "Sampler mismatch (nats/token)",
    "health.expert_steps": "Expert-drift window (steps)",
    "health.expert_high": "Expert-drift threshold (nats/token)",
    "health.expert_rise": "Expert-drift threshold (× lowest)",
    "health.overfit_validations": "Overfitting window (validations)",
    "health.image_measurements": "Image window (measurements)",
    "health.image_gain": "Image gain threshold (nats/completion)",
    "image_changes": "Accuracy with changed images",
    "first_step": "First step",
    "limit": "Max completions",
    "from_job": "Training job",
    "hub": "Repository on the Hugging Face hub",
    "depends_on": "Depends on",
    "warmup_steps": "Warm-up steps",
    "cpu_offload": "CPU offload",
    "diagnostics.gradients_every": "Compare gradients every N steps",
    "diagnostics.experts_every": "Measure experts every N steps",
    "diagnostics.images_every": "Measure use of images every N steps",
}


def label(path: str) -> str:
    """Return the label of a field by its dotted path: `rollout.max_completion_tokens` is "Max completion tokens"."""
    names = [name for name in path.split(".") if not name.isdigit()]
    for end in (".".join(names[-2:]), names[-1]):
        if end in LABELS:
            return LABELS[end]
    text = " ".join(WORDS.get(word, word) for word in names[-1].split("_"))
    return text[:1].upper() + text[1:]


class Schema:
    """The JSON schema of a model with all its parts."""

    def __init__(self, root: Node) -> None:
        self.root = root

    def optional(self, node: Node) -> tuple[Node, bool]:
        """Return a field's schema without null, and true if the field can be null."""
        node = self._resolved(node)
        kinds = node.get("anyOf", ())
        others = [kind for kind in kinds if kind.get("type") != "null"]
        if len(others) == len(kinds):
            return node, False
        beside = {name: value for name, value in node.items() if name != "anyOf"}
        return ({**self._resolved(others[0]), **beside} if len(others) == 1 else {**beside, "anyOf": others}), True

    def _resolved(self, node: Node) -> Node:
        while "$ref" in node:
            target = self.root["$defs"][node["$ref"].rpartition("/")[2]]
            node = {**target, **{name: value for name, value in node.items() if name != "$ref"}}
        return node

    def variants(self, node: Node) -> dict[str, Node]:
        """Return the members of a union by name: the value of the discriminator, or else the first required field."""
        members = [member for member in map(self._resolved, node["oneOf"]) if "properties" in member]
        marker = node.get("discriminator", {}).get("propertyName")
        return {
            member["properties"][marker]["const"] if marker else member["required"][0]: member for member in members
        }

    def list_variant(self, node: Node) -> Node | None:
        """Return the member of a union that is a list, or None."""
        return next((member for member in map(self._resolved, node["oneOf"]) if "items" in member), None)

    def titles(self, field: str) -> dict[str, str]:
        """Return the titles of a field's variants by name."""
        return {name: str(member["title"]) for name, member in self.variants(self.root["properties"][field]).items()}

    def variant(self, node: Node, value: Mapping[str, Any]) -> str:
        """Return the name of the union member that a value is; the first member if the value is empty."""
        names = list(self.variants(node))
        marker = node.get("discriminator", {}).get("propertyName")
        if marker:
            return str(value.get(marker, names[0]))
        return next((name for name in names if name in value), names[0])

    def trimmed(self, node: Node, value: Any) -> Any:
        """Return a value without its defaults. Required fields and discriminators stay."""
        node, _ = self.optional(node)
        if "oneOf" in node and isinstance(value, dict):
            node = self.variants(node)[self.variant(node, value)]
        if isinstance(value, list):
            node = node if "items" in node else self.list_variant(node) or {"items": {}}
            return [self.trimmed(node["items"], item) for item in value]
        if not isinstance(value, dict) or "properties" not in node:
            return value
        content = {}
        for name, item in value.items():
            part, shorter = node["properties"][name], self.trimmed(node["properties"][name], item)
            # A default factory leaves no default in the schema: an empty remainder is the default.
            is_default = item == part["default"] if "default" in part else shorter in ({}, [], None)
            if name in node.get("required", ()) or isinstance(part.get("const"), str) or not is_default:
                content[name] = shorter
        return content
