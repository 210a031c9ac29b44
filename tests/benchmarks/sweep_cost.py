"""What a sweep costs: all layers in one pass, our engine one layer at a time, TRL one by one.

    .venv/bin/python tests/benchmarks/sweep_cost.py [MODEL] [--prompts 16] [--group-size 8]
        [--max-new-tokens N] [--steps 10] [--trl-layers all] [--dataset D --template T --stop S]

MODEL is the built-in math model unless given. All three train with the same prompts, group size,
steps, learning rate and longest completion, and start from a loaded model; one warm-up step is
not counted. TRL runs in the model's number format and in float32, and the faster counts. Times
of layers that were not run (--trl-layers 3) are extrapolated. Without a GPU the script says so.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from layerpick.selector.prepare import Prepared, prepare
from layerpick.selector.settings import ModelChoice, RlSettings, SamplingChoice, TaskSettings
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.engine.loop import StageSeconds, train
from layerpick.training.engine.stacked import SingleLayerPolicies
from layerpick.training.tasks.base import SingleTurnTask

RATE = 1e-5


@dataclass
class Cost:
    """What some steps cost."""

    seconds: float
    """Of one step."""
    memory: int
    """Most bytes allocated on the GPU; 0 elsewhere."""


class TimedRewards:
    """Adds up the seconds that a task's rewards take."""

    def __init__(self, task: SingleTurnTask):
        self.seconds = 0.0
        rewards = task.rewards

        def timed(*arguments):  # type: ignore[no-untyped-def]
            start = time.perf_counter()
            try:
                return rewards(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        task.rewards = timed  # type: ignore[method-assign]


def measured(steps: int, device: torch.device, run: Callable[[int], None]) -> Cost:
    """Cost of one of `steps` steps, after a warm-up step."""
    run(1)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / steps
    return Cost(seconds, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)


def ours(
    prepared: Prepared,
    layers: list[int],
    options: argparse.Namespace,
    spent: StageSeconds | None = None,
) -> Cost:
    """Our engine with these layers stacked."""

    def run(steps: int) -> None:
        settings = RlSettings(steps, options.prompts, options.group_size)
        if spent is not None:
            spent.sampling = spent.update = 0.0  # forget the warm-up
        policies = SingleLayerPolicies(prepared.model, layers)
        algorithm = make_algorithm("grpo")
        train(
            policies,
            prepared.model,
            prepared.task,
            algorithm,
            prepared.sampling,
            settings,
            RATE,
            seed=0,
            spent=spent,
        )

    return measured(options.steps, prepared.model.device, run)


def trl(prepared: Prepared, layer: int, options: argparse.Namespace, dtype: torch.dtype) -> Cost:
    """TRL's GRPOTrainer with one layer trainable, the model in that number format."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    model, task, sampling = prepared.model, prepared.task, prepared.sampling
    assert isinstance(task, SingleTurnTask)
    network = copy.deepcopy(model.model).to(dtype)
    dict(network.named_modules())[model.layers.path][layer].requires_grad_(True)
    prompts = task.prompts("train", options.prompts, 0)
    template = task.settings.template or "{prompt}"
    texts = [template.format(**{**p.columns, "prompt": p.content}) for p in prompts]
    by_text = dict(zip(texts, prompts, strict=True))
    # Ending on the stop string's token is cheaper than TRL's own search for stop strings.
    ends = [model.tokenizer.encode(stop, add_special_tokens=False)[-1] for stop in sampling.stop]

    def rewards(prompts, completions, **_):  # type: ignore[no-untyped-def]
        cut = [text.split(sampling.stop[0])[0] if sampling.stop else text for text in completions]
        return task.rewards([by_text[prompt] for prompt in prompts], cut)

    def run(steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = GRPOConfig(
                output_dir=folder,
                max_steps=steps,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                loss_type="grpo",
                temperature=sampling.temperature,
                max_completion_length=sampling.max_new_tokens,
                num_generations=options.group_size,
                per_device_train_batch_size=options.prompts * options.group_size,
                gradient_checkpointing=False,
                bf16=dtype == torch.bfloat16,
                use_cpu=model.device.type == "cpu",
                generation_kwargs={"eos_token_id": [model.tokenizer.eos_token_id, *ends]},
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            )
            trainer = GRPOTrainer(
                network,
                reward_funcs=rewards,
                args=config,
                train_dataset=Dataset.from_dict({"prompt": texts}),
                processing_class=model.tokenizer,
            )
            trainer.remove_callback(PrinterCallback)
            start = time.perf_counter()
            trainer.train()
            run.seconds = time.perf_counter() - start  # type: ignore[attr-defined]

    cost = measured(options.steps, model.device, run)
    # Building the trainer is not counted: a long run pays it once.
    return Cost(run.seconds / options.steps, cost.memory)  # type: ignore[attr-defined]


def seconds_of(costs: list[Cost]) -> float:
    """Of a step of each."""
    return sum(cost.seconds for cost in costs)


def flops(prepared: Prepared, options: argparse.Namespace) -> float:
    """Floating-point operations of one multiplexed step, counted by PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    settings = RlSettings(1, options.prompts, options.group_size)
    layers = range(len(prepared.model.layers))
    policies = SingleLayerPolicies(prepared.model, layers)
    with FlopCounterMode(display=False) as counter:
        train(
            policies,
            prepared.model,
            prepared.task,
            make_algorithm("grpo"),
            prepared.sampling,
            settings,
            RATE,
            seed=0,
        )
    return float(counter.get_total_flops())


def product_rate(prepared: Prepared) -> float:
    """FLOP/s of a large matrix product in the model's number format."""
    device, dtype = prepared.model.device, prepared.model.dtype
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        left @ right
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 10 * 2 * size**3 / (time.perf_counter() - start)


def chosen_layers(spec: str, count: int) -> list[int]:
    """All layers, or so many spread evenly."""
    if spec == "all":
        return list(range(count))
    wanted = min(int(spec), count)
    return [round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)]


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--trl-layers", default="all")
    parser.add_argument("--dataset")
    parser.add_argument("--template")
    parser.add_argument("--stop", action="append", default=[])
    options = parser.parse_args()
    settings = TaskSettings(
        dataset=options.dataset,
        template=options.template and options.template.replace("\\n", "\n"),
        stop=tuple(stop.replace("\\n", "\n") for stop in options.stop),
    )
    sampling = SamplingChoice(max_new_tokens=options.max_new_tokens, batch_size=4096)
    prepared = prepare(ModelChoice(options.model), "math", settings, sampling)
    device, count = prepared.model.device, len(prepared.model.layers)
    print(f"device: {device}" + ("" if device.type == "cuda" else " (no GPU at hand)"))
    timed, spent = TimedRewards(prepared.task), StageSeconds()  # type: ignore[arg-type]
    together = ours(prepared, list(range(count)), options, spent)
    reward = timed.seconds / (options.steps + 1)
    some = chosen_layers(options.trl_layers, count)
    alone = [ours(prepared, [layer], options) for layer in some]
    formats = dict.fromkeys([prepared.model.dtype, torch.float32])
    yardsticks = {d: [trl(prepared, layer, options, d) for layer in some] for d in formats}
    faster, yardstick = min(yardsticks.items(), key=lambda found: seconds_of(found[1]))
    singly, by_trl = (seconds_of(costs) * count / len(some) for costs in (alone, yardstick))
    print(f"{count} layers, seconds a step of {options.prompts} × {options.group_size} samples")
    print(f"  multiplexed           {together.seconds:8.3f}")
    print(f"  one layer at a time   {singly:8.3f}   {singly / together.seconds:5.2f} ×")
    print(
        f"  TRL one after another {by_trl:8.3f}   {by_trl / together.seconds:5.2f} ×, in {faster}"
    )
    parts = {
        "decoding": spent.sampling / options.steps - reward,
        "update": spent.update / options.steps,
        "reward": reward,
    }
    shares = ", ".join(f"{name} {part / together.seconds:.0%}" for name, part in parts.items())
    print(f"share of the multiplexed step: {shares}")
    rate, best = flops(prepared, options) / together.seconds, product_rate(prepared)
    print(
        f"{rate / 1e9:.0f} GFLOP/s of the {best / 1e9:.0f} of a matrix product: {rate / best:.0%}"
    )
    if device.type == "cuda":
        most = max(cost.memory for cost in yardstick)
        print(f"peak memory: {together.memory / 1e9:.2f} GB, {together.memory / most:.2f} × TRL's")


if __name__ == "__main__":
    main()
