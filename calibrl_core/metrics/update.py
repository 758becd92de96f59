"""Metrics of a step's updates: losses, ratios, clipping, and where the time goes."""

from calibrl_core.metrics.base import Metric, MetricFamily

LOSS = MetricFamily(
    "loss/",
    (
        Metric("loss/policy", "loss", "Clipped policy-gradient loss.", "Near 0 is normal. Look for sudden jumps."),
        Metric(
            "loss/guidance",
            "loss",
            "CalibRL's guidance loss, before `guidance_coef`.",
            "A fall: the policy follows the calibration by the expert.",
            "down",
        ),
        Metric(
            "loss/kl",
            "loss",
            "Divergence from the initial policy, before `kl_coef`. Reported if `kl_coef` is above 0.",
            "It shows how far the policy has moved since the start.",
        ),
        Metric(
            "loss/entropy",
            "nats/token",
            "Entropy during the update, before `entropy_coef`. Reported if `entropy_coef` is above 0.",
            "Read it as `exploration/entropy`; tokens have the weights of the loss.",
        ),
        Metric(
            "loss/total",
            "loss",
            "The minimised loss. With `sft`: nats/token.",
            "The level says little. Look for spikes.",
            label="loss",
        ),
        Metric(
            "loss/grad_norm",
            "gradient norm (L2)",
            "Norm of the gradient before clipping.",
            "Repeated spikes: lower the learning rate (`optimizer.lr`).",
        ),
        Metric(
            "loss/skipped_updates",
            "updates",
            "Updates of this step that were skipped because the loss or the gradient was not finite.",
            "Any value above 0 needs attention. Ten skipped updates in a row end the job.",
            "down",
        ),
        Metric(
            "loss/policy_grad_norm",
            "gradient norm (L2)",
            "Gradient norm of the policy loss alone. Measured every `diagnostics.gradients_every` steps on one "
            "micro-batch per process, summed over the processes as in the update.",
        ),
        Metric(
            "loss/guidance_grad_norm",
            "gradient norm (L2)",
            "Gradient norm of guidance alone, before its weight. Measured as `loss/policy_grad_norm`.",
            "Multiplied by `guidance_coef`, it is the share of guidance in the update.",
        ),
        Metric(
            "loss/guidance_cosine",
            "cosine, −1 to 1",
            "Cosine between the gradients of policy loss and guidance. Measured as `loss/policy_grad_norm`.",
            "Near 1 guidance only lengthens the step. Lower: guidance adds a direction of its own. Below 0: the two "
            "gradients conflict.",
        ),
        Metric(
            "loss/guidance_opposing_share",
            "share of elements",
            "Share of the gradient elements, of those non-zero in both gradients, with opposite signs. Measured as "
            "`loss/policy_grad_norm`.",
            "0.5 means that the two gradients are uncorrelated.",
        ),
    ),
    "Means over the step's updates. `guidance`, `kl` and `entropy` are reported before their weights.",
)

ALGORITHM = MetricFamily(
    "algorithm/",
    (
        Metric(
            "algorithm/<setting>",
            "as the setting",
            "Value in this step of a setting that the algorithm moves, such as `guidance_coef` with "
            "`algorithm.guidance_control`.",
            "At its minimum or maximum for long: the setting cannot keep the measure within the band.",
        ),
    ),
)

RATIO = MetricFamily(
    "ratio/, clip/ and kl/",
    (
        Metric("ratio/mean", "ratio", "Mean probability ratio.", "It should stay near 1."),
        Metric(
            "ratio/max",
            "ratio",
            "Largest probability ratio.",
            "Far above 1 + `clip_high`: the steps are too large, or sampler and trainer disagree.",
        ),
        Metric(
            "ratio/ess",
            "share",
            "Effective sample size: (sum of ratios)² / (tokens × sum of squared ratios).",
            "1 on-policy. Below about 0.9 a few tokens dominate the update.",
        ),
        Metric(
            "clip/low_share",
            "share of tokens",
            "Clip fraction (low): ratio below 1 − `clip_low` and A < 0.",
            "A steady rise: the steps are too large.",
        ),
        Metric(
            "clip/high_share",
            "share of tokens",
            "Clip fraction (high): ratio above 1 + `clip_high` and A > 0.",
            "High values: the clip holds back rare good tokens.",
        ),
        Metric(
            "clip/dual_share",
            "share of tokens",
            "Clip fraction (dual): the dual clip limits the loss.",
            "Above 0 some ratios are far out of range.",
            "down",
        ),
        Metric(
            "kl/approx",
            "nats/token",
            "Approximate KL per step, old policy ‖ new policy: mean of log(old) − log(current).",
            "Jumps: lower the learning rate (`optimizer.lr`).",
        ),
        Metric(
            "kl/sampler",
            "nats/token",
            "Divergence between the sampler's and the trainer's log-probabilities for the same weights, estimated as "
            "k3 from the tokens of the step's first update. Filters such as `rollout.top_p` and "
            "`rollout.repetition_penalty` change the sampler's and count too. With `rollout.max_staleness` 1 the "
            "sampler's weights are one step older, and their difference counts.",
            "Without filters about 1e-12 in float32, small and steady in bfloat16. A jump: the engine computes this "
            "model differently than the trainer. With `rollout.max_staleness` 1 a rise: lower the learning rate.",
            "down",
        ),
        Metric(
            "clip/sampler_share",
            "share of tokens",
            "Tokens with an importance weight that `rollout.importance_cap` truncates or masks. Reported in bfloat16, "
            "with vLLM and with filters such as `rollout.top_p`, unless `rollout.importance_correction` is "
            "none.",
            "Above 0.01 the correction is biased.",
            "down",
        ),
    ),
    "Ratio of the current policy to the policy that sampled, over rollout tokens, during the step's updates. The "
    "published code also counts expert rows; these metrics do not. Rows that the update skips (A = 0) count with a "
    "ratio of 1.",
)

PERF = MetricFamily(
    "perf/",
    (
        Metric(
            "perf/step_seconds",
            "s",
            "Step time: the sum of all phases. Without diagnostics, validation, checkpoints and samples.",
            "Lower is faster. Spikes: long completions, or a busy machine.",
            "down",
            label="step time",
        ),
        Metric(
            "perf/image_seconds",
            "s",
            "Time that the step waits for encoded prompts: images, chat template and tokenizer.",
            "Above a tenth of the step time: raise data_workers, or lower prompts.max_pixels.",
            "down",
        ),
        Metric(
            "perf/encodings",
            "prompts",
            "Prompts that were encoded for the step, each at most once. The others were still in memory.",
            "",
            "down",
        ),
        Metric("perf/rollout_seconds", "s", "Time for sampling.", "", "down"),
        Metric(
            "perf/rescore_seconds",
            "s",
            "Time for the trainer's own log-probabilities of the rollouts. Reported in bfloat16 and with vLLM, if a "
            "step has several updates.",
            "",
            "down",
        ),
        Metric("perf/reward_seconds", "s", "Time for verifiers.", "It should be small beside the rest.", "down"),
        Metric("perf/expert_seconds", "s", "Time for the log-probabilities of the experts.", "", "down"),
        Metric("perf/update_seconds", "s", "Time for forward, backward and optimizer.", "", "down"),
        Metric("perf/validation_seconds", "s", "Time for the validation after the step.", "", "down"),
        Metric(
            "perf/tokens_per_second",
            "tokens/s",
            "Throughput: completion tokens of the step, divided by its step time.",
            "A lasting fall: another process uses the machine.",
            "up",
        ),
        Metric(
            "perf/memory_bytes",
            "bytes",
            "Peak memory so far: of tensors on the GPU, or resident memory of the trainer on a CPU.",
            "Steady growth after the first steps suggests a memory leak.",
            "down",
        ),
        Metric(
            "perf/cpu_cores/<rank>",
            "cores",
            "CPU time of a process since the step before, per second. Without the processes that it started.",
            "Near the number of cores: the CPU limits the speed.",
        ),
        Metric("perf/host_memory_bytes/<rank>", "bytes", "Resident memory of a process at the end of the step.", ""),
        Metric(
            "perf/gpu_utilisation/<rank>",
            "%",
            "GPU utilisation at the end of the step, of the GPU of a process, as the driver reports it.",
            "It is one reading per step. Low in most steps: the GPU waits for data, rewards or other processes.",
        ),
        Metric(
            "perf/gpu_memory_bytes/<rank>",
            "bytes",
            "Memory in use on the GPU of a process at the end of the step, by all processes.",
            "Near the size of the GPU: the next long batch can run out of memory.",
        ),
    ),
)

SCHEDULE = MetricFamily(
    "schedule/",
    (
        Metric(
            "schedule/learning_rate",
            "rate",
            "Learning rate of the updates of the step.",
            "It follows `optimizer.schedule` and `optimizer.warmup_steps`.",
            label="learning rate",
        ),
        Metric(
            "schedule/epoch",
            "epochs",
            "Passes over the training data so far.",
            "1.5: each row was used once, half of them twice.",
            label="epoch",
        ),
    ),
)
