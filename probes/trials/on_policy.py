"""On-policy warm-up: a few real RL steps of each layer alone, all layers in one pass.

Engine and clipping are those of a sweep, the learning rate a few times that of real training, so
that few steps go far. The seed is another, or the warm-up would resemble the first steps of the
very run it is to predict. Held-out prompts belong to the sweep's score:
policies are judged on training prompts drawn with a seed of their own, on which the base policy is
judged too.

Limits: in a small data set the prompts judged on may be among those trained on. Memory is that of
training every layer at once: float32 weights, gradients and AdamW's two moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from layerpick.probes.base import WITH_BACKWARD, FeatureInfo, Measurement, Pace, Probe, ProbeInput
from layerpick.probes.trials.scores import means_over_prompts
from layerpick.training.engine.learner import Learner, lessons_of
from layerpick.training.engine.loop import Step, step_seed, train
from layerpick.training.engine.stacked import SingleLayerPolicies, check_multiplexing
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.scoring import HeldOut, play_policies, score_model, score_of
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.errors import LayerpickError
from layerpick.training.settings import RlSettings
from layerpick.training.tasks.base import Task

STEPS = (5, 10, 20)
TOGETHER = 0.4
"""Time of sampling and learning many policies side by side, over that of one after another."""
"""When policies can be judged: features mean the same everywhere."""
TRAINING, JUDGING = 2**31 + 1, 2**31 + 2
"""Stand for the step number in the seeds of the training and of the judgement."""
STATISTICS = {
    "level": ("training reward above the base policy's", "mean of the last half of steps − r̄₀"),
    "slope": ("rise of the training reward in one step", "least squares"),
    "slope_error": ("standard error of the slope", "from the residuals"),
    "gain": ("rise in reward on prompts of its own", "mean of r − r₀ over the same prompts"),
    "gain_error": ("standard error of the gain", "over prompts"),
    "weight_change": ("movement of the layer's weights", "‖θ − θ₀‖ / ‖θ₀‖"),
    "kl": ("KL from the base policy, in nats per trajectory", "mean of Σ_t (e^−d − 1 + d)"),
    "kl_error": ("standard error of the KL", "over prompts"),
    "gain_per_kl": ("gain for the distance moved", "gain / √KL"),
    "gain_per_kl_error": ("standard error of gain / √KL", "over prompts"),
}
"""d = log π − log π₀ of a token that π wrote."""
SOURCE = "GRPO (arXiv 2402.03300); KL by k3 of Schulman (2020)"


def chosen_steps(text: str) -> tuple[int, ...]:
    """Numbers of steps from a list separated by commas, in order.

    Raises LayerpickError for any that is not among STEPS.
    """
    parts = [part.strip() for part in text.split(",")]
    known = {str(steps): steps for steps in STEPS}
    if not set(parts) <= set(known):
        raise LayerpickError(
            f"--warmup-steps '{text}' must be one or more of {', '.join(known)}, as in 5,10."
        )
    return tuple(sorted({known[part] for part in parts}))


class OnPolicyProbe(Probe):
    """Reward, gain and movement after a few RL steps of each layer alone."""

    name = "warm_up"
    needs = "training"
    of_candidates = True
    headings: ClassVar[Mapping[str, str]] = {"warm_up_5_gain": "RL gain"}
    features = tuple(
        FeatureInfo(f"warm_up_{steps}_{name}", f"{about}, {steps} RL steps", formula, SOURCE)
        for steps in STEPS
        for name, (about, formula) in STATISTICS.items()
    )

    def seconds(self, probe_input: ProbeInput, pace: Pace) -> float:
        """Sampling and learning from each candidate's own episodes."""
        episodes = max(probe_input.sizes.on_policy_steps) * probe_input.sizes.on_policy_episodes
        policies = TOGETHER * len(pace.candidates)
        sampled = policies * episodes / len(probe_input.rollouts.trajectories)
        return sampled * (pace.sampling + WITH_BACKWARD * pace.forward)

    def ticks(self, probe_input: ProbeInput) -> int:
        """One per RL step, one per judgement."""
        times = probe_input.sizes.on_policy_steps
        return max(times) + 1 + len(times)

    def measure(
        self, probe_input: ProbeInput, on_done: Callable[[int], None] = lambda _: None
    ) -> Measurement:
        """Train all layers once, for the largest number of steps; judge them on the way.

        Raises LayerpickError when the task is not at hand, the layers cannot be stacked, or the
        training of a layer breaks.
        """
        task, sampling = _setting(probe_input)
        times = probe_input.sizes.on_policy_steps
        check_multiplexing(probe_input.model)
        trained = list(probe_input.trained_layers)
        policies = SingleLayerPolicies(probe_input.model, trained)
        judged: dict[int, list[dict[str, float]]] = {}
        steps = count(1)
        with counting_tokens(probe_input.model.model) as read:
            judge = _Judge(probe_input, policies)
            on_done(1)

            def after_step(_: Step) -> None:
                step = next(steps)
                on_done(1)
                if step in times:
                    judged[step] = judge()
                    on_done(1)

            runs = train(
                policies,
                probe_input.model,
                task,
                probe_input.algorithm,
                sampling,
                on_policy_settings(probe_input),
                on_policy_rate(probe_input),
                seed=step_seed(probe_input.seed, TRAINING),
                on_step=after_step,
            )
        for layer, run in zip(trained, runs, strict=True):
            if run.failure is not None:
                raise LayerpickError(f"The training of layer {layer} broke: {run.failure}.")
        features = {}
        for step, scores in judged.items():
            for run, score in zip(runs, scores, strict=True):
                score.update(curve(run.rewards[:step], probe_input.rollouts.mean_reward))
            for name in STATISTICS:
                values = np.full(probe_input.layer_count, np.nan)
                values[trained] = [score[name] for score in scores]
                features[f"warm_up_{step}_{name}"] = values
        sampled = judge.sampled_tokens + sum(run.tokens for run in runs)
        return Measurement(features, sum(read), sampled_tokens=sampled)


def on_policy_rate(probe_input: ProbeInput) -> float:
    """That of real training times the warm-up's stride."""
    return probe_input.sizes.on_policy_stride * probe_input.learning_rate


def on_policy_settings(probe_input: ProbeInput) -> RlSettings:
    """How long and on how much each layer is trained."""
    sizes, size = probe_input.sizes, probe_input.rollouts.origin.group_size
    return RlSettings(
        steps=max(sizes.on_policy_steps),
        prompts=max(1, sizes.on_policy_episodes // size),
        group_size=size,
    )


def curve(rewards: Sequence[float], base: float) -> dict[str, float]:
    """Level above the base's reward, slope and its standard error; three steps at least."""
    values, steps = np.asarray(rewards), np.arange(len(rewards))
    slope, start = np.polyfit(steps, values, 1)
    residuals = values - (start + slope * steps)
    spread = ((steps - steps.mean()) ** 2).sum()
    error = np.sqrt((residuals**2).sum() / (len(values) - 2) / spread)
    level = values[len(values) // 2 :].mean() - base
    return {"level": float(level), "slope": float(slope), "slope_error": float(error)}


def weight_change(policies: SingleLayerPolicies, policy: int) -> float:
    """‖θ − θ₀‖ / ‖θ₀‖ of the layer that a policy trains."""
    before = dict(policies.model.layers[policies.layers[policy]].named_parameters())
    trained = policies.copies[policy].trained
    moved = [trained[name].detach() - old.float() for name, old in before.items()]
    size = torch.nn.utils.get_total_norm([old.float() for old in before.values()])
    return float(torch.nn.utils.get_total_norm(moved) / size)


@contextmanager
def counting_tokens(model: nn.Module) -> Iterator[list[int]]:
    """While open, collects the tokens of each pass through the model, padding included."""
    tokens: list[int] = []

    def look(_: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        tokens.append((args[0] if args else kwargs["input_ids"]).numel())

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield tokens
    finally:
        handle.remove()


class _Judge:
    """Compares policies with the base policy on prompts drawn for that alone."""

    def __init__(self, probe_input: ProbeInput, policies: SingleLayerPolicies):
        self._probe_input = probe_input
        self._policies = policies
        self._task, self._sampling = _setting(probe_input)
        self._seed = step_seed(probe_input.seed, JUDGING)
        sizes = probe_input.sizes
        prompts = min(sizes.judged_prompts, 2 * len(probe_input.rollouts.groups))
        drawn = self._task.prompts("train", prompts, self._seed)
        self._on = HeldOut(drawn, sizes.judged_samples)
        self._base = score_model(
            probe_input.model, self._task, self._sampling, self._on, self._seed
        )
        heat = self._sampling.temperature
        settings, rate = on_policy_settings(probe_input), on_policy_rate(probe_input)
        self._learner = Learner(policies, settings, rate, heat, probe_input.model)
        self.sampled_tokens = self._base.tokens
        """Written by the base policy and by those judged."""

    def __call__(self) -> list[dict[str, float]]:
        """Gain, movement and their errors, by policy."""
        for policy, layer in enumerate(self._policies.layers):
            if not self._policies.finite(policy):
                raise LayerpickError(f"The weights of layer {layer} are not finite any more.")
        played = play_policies(self._policies, self._task, self._sampling, self._on, self._seed)
        scores = [score_of(episodes, self._on) for episodes in played]
        self.sampled_tokens += sum(score.tokens for score in scores)
        base, divergences = np.array(self._base.by_prompt), self._divergences(played)
        return [
            {
                **means_over_prompts({"gain": np.array(score.by_prompt) - base, "kl": kl}),
                "weight_change": weight_change(self._policies, policy),
            }
            for policy, (score, kl) in enumerate(zip(scores, divergences, strict=True))
        ]

    def _divergences(self, played: Sequence[Sequence[Trajectory]]) -> np.ndarray:
        """(policies, prompts), float64: KL(π ‖ π₀) per trajectory, by what π wrote."""
        probe_input, size = self._probe_input, self._on.samples
        longest = self._sampling.max_new_tokens * self._task.max_turns
        lessons = []
        for policy, episodes in enumerate(played):
            groups = [episodes[start : start + size] for start in range(0, len(episodes), size)]
            lessons += lessons_of(policy, groups, probe_input.algorithm, longest)
        found = []
        own, before = self._learner.log_probs(lessons), self._learner.base_log_probs(lessons)
        for (_, after), (_, base) in zip(own, before, strict=True):
            difference = after.astype(np.float64) - base
            found.append((np.exp(-difference) - 1 + difference).sum())
        return np.array(found).reshape(len(played), -1, size).mean(axis=2)


def _setting(probe_input: ProbeInput) -> tuple[Task, SamplingSettings]:
    if probe_input.task is None or probe_input.sampling is None:
        raise LayerpickError("The warm-up samples: it needs the task, not its rollouts alone.")
    return probe_input.task, probe_input.sampling
