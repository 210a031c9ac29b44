"""`layerpick suggest`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector.options import with_groups
from layerpick.selector.settings import (
    AlgorithmName,
    Json,
    ModelChoice,
    RolloutChoice,
    SamplingChoice,
    Seed,
    TaskName,
    TaskSettings,
)
from layerpick.selector.suggestion.budget import DEFAULT, read_budget
from layerpick.training.errors import LayerpickError


def wanted_probes(
    probes: str | None, fast: bool, warmup_steps: str | None, rollouts: RolloutChoice
) -> str | None:
    """The probes that the options name, separated by commas; None where they leave it open.

    A warm-up brings what the predictors that read it were taught beside it.
    """
    from layerpick.calibration.predictors.levels import FIRST, LEVELS

    more = ["warm_up"] if warmup_steps else []
    more += ["gradient"] if rollouts.also else []
    if probes is None and not fast and not more:
        return None
    level = LEVELS["on_policy" if warmup_steps and not fast else FIRST]
    chosen = level.probes if probes is None else [probes]
    return ",".join(dict.fromkeys([*chosen, *more]))


@with_groups
def suggest(
    model: ModelChoice,
    settings: TaskSettings,
    rollouts: RolloutChoice,
    sampling: SamplingChoice,
    task: TaskName = "math",
    algorithm: AlgorithmName = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Only the cheapest level: no probe trains anything."),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Minutes, or a share of a sweep's time as 5%, for going from cheap probes to "
            "dear ones.",
            show_default=DEFAULT,
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(help="Chance of being best at which to stop before.", min=0, max=1),
    ] = 1.0,
    probes: Annotated[
        str | None,
        typer.Option(
            help="Just these, by names or cost classes (weights, forward, backward, training), "
            "separated by commas, or all; see `layerpick probes`.",
        ),
    ] = None,
    warmup_steps: Annotated[
        str | None,
        typer.Option(
            help="Probe with a real warm-up too, judged after 5, 10 or 20 RL steps of every "
            "layer, and with all cheaper ones unless --probes or --fast say less; several as in "
            "5,10. The shipped predictors read that of 5.",
            show_default="5",
        ),
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="All layers, and up to six features, in the table.")
    ] = False,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)] = Path(
        "layerpick-out"
    ),
    as_json: Json = False,
) -> None:
    """Predict which decoder layer gains most from RL when it is trained alone.

    Samples the model once, probes every layer, from cheap probes to dear ones for up to 10 \
minutes, and ranks the layers by predicted contribution: the share of the full-parameter RL gain \
that the layer alone recovers. Once the first level is there, Ctrl-C answers with what is known. \
Writes suggestion.json, profile.png and report.html.

    Examples:

      layerpick suggest

      layerpick suggest Qwen/Qwen3-4B --task math

      layerpick suggest Qwen/Qwen3-4B --task math --fast

      layerpick suggest ./my-model --dataset rows.jsonl --template 'Q: {prompt}\\nA:' --stop '\\n'
    """
    from rich.console import Console

    from layerpick.probes.base import ProbeSizes
    from layerpick.probes.table import chosen_probes
    from layerpick.probes.trials.on_policy import chosen_steps
    from layerpick.selector.pages.html import REPORT, write_page
    from layerpick.selector.progress import reporting
    from layerpick.selector.suggestion.page import suggestion_page
    from layerpick.selector.suggestion.picture import draw_suggestion
    from layerpick.selector.suggestion.report import print_suggestion
    from layerpick.selector.suggestion.run import suggest as make_suggestion

    named = wanted_probes(probes, fast, warmup_steps, rollouts)
    if named and budget is not None:
        raise LayerpickError("--budget goes through levels of probes: leave it out, or the probes.")
    sizes = ProbeSizes(on_policy_steps=chosen_steps(warmup_steps)) if warmup_steps else ProbeSizes()
    with reporting() as reporter:
        suggestion = make_suggestion(
            model,
            task,
            settings=settings,
            algorithm=algorithm,
            sampling=sampling,
            rollouts=rollouts,
            probes=chosen_probes(named) if named else None,
            sizes=sizes,
            spending=read_budget(DEFAULT if budget is None else budget, confidence),
            seed=seed,
            reporter=reporter,
        )
    try:
        suggestion.save(out / "suggestion.json")
        draw_suggestion(suggestion, out / "profile.png")
        write_page(suggestion_page(suggestion), out / REPORT)
    finally:  # a full disk should not cost the answer
        if as_json:
            sys.stdout.write(suggestion.to_json())
        else:
            print_suggestion(suggestion, Console(), wide)
    if not as_json:
        written = (str(out / name) for name in ("suggestion.json", "profile.png", REPORT))
        print(f"Written: {', '.join(written)}", file=sys.stderr)
