"""Let the models of several runs answer the same held-out prompts, and count.

The base model is loaded once; a run's trained layer takes its place in it for as long as the run
answers. Each answers as it did when it was scored, noise included, so that its score is that of its
run. A vote is held for every prompt and sample; a tie goes to the run named first.

Limits: single-turn tasks. What counts as one answer is the task's affair (`final_answer`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from layerpick.selector.prepare import Prepared, prepare
from layerpick.selector.progress import Reporter, Silent
from layerpick.selector.settings import LoadingChoice, ModelChoice, SamplingChoice, TaskSettings
from layerpick.selector.verification.run import finished
from layerpick.selector.voting.result import Vote, Voter
from layerpick.training.engine.loop import step_seed
from layerpick.training.engine.policies import FIRST_LAYER_STREAM, FULL_STREAM
from layerpick.training.episodes.play import Stops, play
from layerpick.training.episodes.scoring import HeldOut, held_out, score_of, scoring_progress
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.errors import LayerpickError
from layerpick.training.progress import Writing
from layerpick.training.runs.delta import DeltaOrigin, put_in, read_delta
from layerpick.training.runs.folder import PolicyScore, RunDescription, RunFolder, RunResult
from layerpick.training.sweeps.multiplexed import SCORING_STEP
from layerpick.training.tasks.base import SingleTurnTask

SHARED = (
    *("weights_hash", "task", "data_hash", "task_settings_hash", "heldout_prompts"),
    *("heldout_samples", "prompts_hash", "max_new_tokens", "temperature"),
)
"""Settings in which runs must agree to vote together."""


@dataclass(frozen=True)
class _Run:
    """A finished run with its trained weights."""

    path: Path
    description: RunDescription
    result: RunResult
    tensors: dict[str, torch.Tensor]
    origin: DeltaOrigin


def vote(
    runs: Sequence[Path],
    settings: TaskSettings | None = None,
    *,
    base: str | None = None,
    device: str = "auto",
    batch_size: int = 2048,
    loading: LoadingChoice | None = None,
    reporter: Reporter | None = None,
) -> Vote:
    """Count the votes of the runs' models on the prompts that they were scored on.

    `settings` are the task's, as they were given to `layerpick train`. Raises LayerpickError for
    fewer than two runs, runs that do not belong together, and tasks of several turns.
    """
    found = [_read(path) for path in runs]
    _check(found)
    settings, reporter = settings or TaskSettings(), reporter or Silent()
    prepared = _prepare(found[0], settings, base, device, batch_size, loading or LoadingChoice())
    if not isinstance(prepared.task, SingleTurnTask):
        raise LayerpickError("Episodes of several turns have no answer to vote on.")
    about = found[0].description.settings
    on = held_out(prepared.task, about.heldout_prompts, about.heldout_samples)
    progress = scoring_progress(
        reporter, "voting", prepared.task, prepared.sampling, on, len(found)
    )
    answers, episodes, seconds = [], [], 0.0
    for run in found:
        start = time.perf_counter()
        own = _episodes(run, prepared, on, progress)
        seconds += time.perf_counter() - start
        episodes.append(own)
        answers.append(_answers(own, prepared, prepared.task))
    return _count(found, episodes, answers, on, seconds)


def _read(path: Path) -> _Run:
    folder = RunFolder(path)
    description, result = finished(folder)
    tensors, origin = read_delta(path)
    return _Run(path, description, result, tensors, origin)


def _check(runs: Sequence[_Run]) -> None:
    if len(runs) < 2:
        raise LayerpickError("A vote needs two runs at least: name more.")
    first = runs[0].description.settings
    for run in runs[1:]:
        for name in SHARED:
            one, other = getattr(first, name), getattr(run.description.settings, name)
            if one != other:
                raise LayerpickError(
                    f"{runs[0].path} and {run.path} differ in {name} ({one:.40}, {other:.40}): "
                    f"only runs of one model, scored on the same prompts, can vote."
                    if isinstance(one, str)
                    else f"{runs[0].path} and {run.path} differ in {name} ({one}, {other}): only "
                    f"runs of one model, scored on the same prompts, can vote."
                )


def _prepare(
    run: _Run,
    settings: TaskSettings,
    base: str | None,
    device: str,
    batch_size: int,
    loading: LoadingChoice,
) -> Prepared:
    """The base model and the task as they were in training."""
    origin, about = run.origin, run.description.settings
    model = ModelChoice(
        model=base or origin.base_model,
        revision=None if base else origin.revision,
        dtype=origin.dtype,
        device=device,
        **vars(loading),
    )
    if settings.dataset is None and settings.env is None:
        settings = replace(settings, dataset=origin.source)
    sampling = SamplingChoice(about.max_new_tokens, about.temperature, batch_size)
    prepared = prepare(model, about.task, settings, sampling)
    wanted = {
        "weights": (about.weights_hash, prepared.model.identity.weights_hash),
        "data": (about.data_hash, prepared.task.fingerprint()),
        "task settings": (about.task_settings_hash, prepared.task.settings.identity),
    }
    for what, (trained, now) in wanted.items():
        if trained != now:
            raise LayerpickError(
                f"{run.path} was made with other {what} ({trained:.12}…, not {now:.12}…): give the "
                f"options of the task that its `layerpick train` had, and --base for its model."
            )
    return prepared


def _episodes(run: _Run, prepared: Prepared, on: HeldOut, progress: Writing) -> list[Trajectory]:
    """A run's answers, in order of prompt, then sample; the base model is as before afterwards."""
    model, layers = prepared.model, run.description.layers
    parameters = dict(model.model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in run.tensors if name in parameters}
    put_in(model, run.tensors)
    try:
        return play(
            model,
            prepared.task,
            on.prompts,
            on.samples,
            prepared.sampling,
            seed=step_seed(run.description.seed, SCORING_STEP),
            streams=(FULL_STREAM if layers is None else FIRST_LAYER_STREAM + layers[0],),
            progress=progress,
        )
    finally:
        put_in(model, before)


def _answers(episodes: Sequence[Trajectory], prepared: Prepared, task: SingleTurnTask) -> list[str]:
    stops = Stops(prepared.model, prepared.sampling.stop)
    texts = (stops.text(list(each.tokens[each.prompt_length :])) for each in episodes)
    return [task.final_answer(text) for text in texts]


def _count(
    runs: Sequence[_Run],
    episodes: Sequence[Sequence[Trajectory]],
    answers: Sequence[Sequence[str]],
    on: HeldOut,
    seconds: float,
) -> Vote:
    ballots = list(zip(*answers, strict=True))
    # Of answers with as many votes, Counter names the one met first first.
    winners = [Counter(ballot).most_common(1)[0] for ballot in ballots]
    chosen = [
        episodes[ballot.index(answer)][index]
        for index, (ballot, (answer, _)) in enumerate(zip(ballots, winners, strict=True))
    ]
    scores = [score_of(own, on) for own in episodes]
    best = int(np.argmax([score.mean for score in scores]))
    won = score_of(chosen, on)
    gains = np.array(won.by_prompt) - np.array(scores[best].by_prompt)
    counts = np.array([count for _, count in winners])
    with_majority = [
        np.mean([each == answer for each, (answer, _) in zip(own, winners, strict=True)])
        for own in answers
    ]
    voters = tuple(
        Voter(
            run=str(run.path),
            trained=run.origin.trained,
            score=PolicyScore.of(score),
            with_majority=float(share),
            trained_parameters=sum(tensor.numel() for tensor in run.tensors.values()),
        )
        for run, score, share in zip(runs, scores, with_majority, strict=True)
    )
    return Vote(
        model=runs[0].origin.base_model,
        task=runs[0].origin.task,
        voters=voters,
        base=runs[0].result.base,
        score=PolicyScore.of(won),
        best=best,
        gain=float(gains.mean()),
        gain_error=float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0,
        agreement=float(counts.mean() / len(runs)),
        unanimous=float((counts == len(runs)).mean()),
        tokens=sum(score.tokens for score in scores),
        tokens_of_one=float(np.mean([score.tokens for score in scores])),
        seconds=seconds,
        stored_parameters=sum(voter.trained_parameters for voter in voters),
        full_parameters=runs[0].result.full_parameters,
    )
