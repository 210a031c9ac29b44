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


@with_groups
def suggest(
    model: ModelChoice,
    settings: TaskSettings,
    rollouts: RolloutChoice,
    sampling: SamplingChoice,
    task: TaskName = "math",
    algorithm: AlgorithmName = None,
    probes: Annotated[
        str,
        typer.Option(
            help="Names or cost classes (weights, forward, backward, training), separated by "
            "commas, or all; see `layerpick probes`."
        ),
    ] = "weights,hidden,gradient",
    warmup_steps: Annotated[
        str | None,
        typer.Option(
            help="Probe with a real warm-up too, judged after 5, 10 or 20 RL steps of every "
            "layer; several as in 5,10. The shipped predictors read that of 5.",
            show_default="5",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Minutes, or a share of a sweep's time as 5%: measure from cheap to dear, in "
            "place of --probes, until the pick is certain enough or this is spent."
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(help="With --budget: chance of being best at which to stop.", min=0, max=1),
    ] = 0.9,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)] = Path(
        "layerpick-out"
    ),
    as_json: Json = False,
) -> None:
    """Predict which decoder layer gains most from RL when it is trained alone.

    Samples the model once, probes every layer, and ranks the layers by predicted contribution: \
the share of the full-parameter RL gain that the layer alone recovers. \
Writes suggestion.json and profile.png.

    Examples:

      layerpick suggest

      layerpick suggest Qwen/Qwen3-4B --task math

      layerpick suggest ./my-model --dataset rows.jsonl --template 'Q: {prompt}\\nA:' --stop '\\n'
    """
    from rich.console import Console

    from layerpick.probes.base import ProbeSizes
    from layerpick.probes.table import chosen_probes
    from layerpick.probes.trials.on_policy import chosen_steps
    from layerpick.selector.pages.html import REPORT, write_page
    from layerpick.selector.progress import reporting
    from layerpick.selector.suggestion.budget import read_budget
    from layerpick.selector.suggestion.page import suggestion_page
    from layerpick.selector.suggestion.picture import draw_suggestion
    from layerpick.selector.suggestion.report import print_suggestion
    from layerpick.selector.suggestion.run import suggest as make_suggestion

    asked = [probes, warmup_steps and "warm_up", rollouts.also and "gradient"]
    sizes = ProbeSizes(on_policy_steps=chosen_steps(warmup_steps)) if warmup_steps else ProbeSizes()
    with reporting() as reporter:
        suggestion = make_suggestion(
            model,
            task,
            settings=settings,
            algorithm=algorithm,
            sampling=sampling,
            rollouts=rollouts,
            probes=chosen_probes(",".join(name for name in asked if name)),
            sizes=sizes,
            spending=read_budget(budget, confidence) if budget is not None else None,
            seed=seed,
            reporter=reporter,
        )
    suggestion.save(out / "suggestion.json")
    draw_suggestion(suggestion, out / "profile.png")
    write_page(suggestion_page(suggestion), out / REPORT)
    if as_json:
        sys.stdout.write(suggestion.to_json())
        return
    print_suggestion(suggestion, Console())
    written = (str(out / name) for name in ("suggestion.json", "profile.png", REPORT))
    print(f"Written: {', '.join(written)}", file=sys.stderr)
