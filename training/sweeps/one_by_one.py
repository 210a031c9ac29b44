"""A sweep's runs by TRL, one after another: the yardstick of the multiplexed engine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from layerpick.training.engine.loop import PolicyRun, step_seed
from layerpick.training.engine.policies import BASE_STREAM, FIRST_LAYER_STREAM, FULL_STREAM
from layerpick.training.episodes.scoring import score_model
from layerpick.training.progress import SILENT, Reporter
from layerpick.training.runs.folder import RunFolder
from layerpick.training.runs.rules import NotFiniteError
from layerpick.training.sweeps.multiplexed import SCORING_STEP, Bench, record
from layerpick.training.sweeps.records import RunKey, RunRecord
from layerpick.training.trl.run import TrlSettings, train


def run_trl_pass(
    bench: Bench, keys: Sequence[RunKey], reporter: Reporter = SILENT
) -> list[RunRecord]:
    """Measure runs with TRL, each by itself."""
    return [_run(bench, key, reporter) for key in keys]


def _run(bench: Bench, key: RunKey, reporter: Reporter) -> RunRecord:
    start = time.perf_counter()
    stream = {"base": BASE_STREAM, "full": FULL_STREAM}.get(key.kind)
    if stream is None:
        stream = FIRST_LAYER_STREAM + int(key.layer or 0)
    with _unchanged(bench.model.model):
        run = PolicyRun() if key.kind == "base" else _trained(bench, key, reporter)
        score = score_model(
            bench.model,
            bench.task,
            bench.sampling,
            bench.heldout,
            step_seed(key.seed, SCORING_STEP),
            stream,
            reporter=reporter,
            name=f"scoring {key.name}",
        )
    return record(bench, "trl", key, run, score, time.perf_counter() - start, 1)


def _trained(bench: Bench, key: RunKey, reporter: Reporter) -> PolicyRun:
    """Train the bench's own model, in place."""
    steps = bench.settings.steps
    settings = TrlSettings(
        layers=None if key.layer is None else (key.layer,),
        learning_rate=key.learning_rate or 0.0,
        seed=key.seed,
        checkpoint_every=steps + 1,
    )
    run = PolicyRun()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        try:
            train(bench, settings, folder, on_step=reporter.stage(key.name, steps))
        except NotFiniteError:
            run.failure = f"the loss or gradient of step {len(folder.metrics())} is not finite"
        written = [step.values for step in folder.metrics()]
    rows = bench.settings.prompts * bench.settings.group_size
    run.rewards = [float(values["reward"]) for values in written]
    run.losses = [float(values["loss"]) for values in written]
    run.tokens = round(sum(values["completions/mean_length"] * rows for values in written))
    return run


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Afterwards the weights are what they were."""
    before = {name: value.detach().clone() for name, value in network.state_dict().items()}
    try:
        yield
    finally:
        with torch.no_grad():
            network.load_state_dict(before)
