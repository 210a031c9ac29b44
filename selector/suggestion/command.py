"""`layerpick suggest`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector import options


def suggest(
    model: options.Model = None,
    task: options.TaskName = "math",
    algorithm: options.Algorithm = None,
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
            "place of --probes, until the pick is certain enough or this is spent.",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(help="With --budget: chance of being best at which to stop.", min=0, max=1),
    ] = 0.9,
    out: options.Out = Path("layerpick-out"),
    as_json: options.Json = False,
    dataset: options.Dataset = None,
    template: options.Template = None,
    system: options.System = None,
    instruction: options.Instruction = None,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    stop: options.Stop = None,
    reward: options.Reward = None,
    all_or_nothing: options.AllOrNothing = False,
    unsafe_exec: options.UnsafeExec = False,
    env: options.Env = None,
    max_turns: options.MaxTurns = None,
    invalid_penalty: options.InvalidPenalty = None,
    prompts: options.Prompts = 64,
    group_size: options.GroupSize = 8,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    batch_size: options.Rows = 64,
    seed: options.Seed = 0,
    rollouts: Annotated[
        Path | None,
        typer.Option(help="Reuse rollouts from this file.", rich_help_panel=options.SAMPLING),
    ] = None,
    save_rollouts: Annotated[
        Path | None,
        typer.Option(
            help="Write the rollouts to this .safetensors file.", rich_help_panel=options.SAMPLING
        ),
    ] = None,
    also: Annotated[
        Path | None,
        typer.Option(
            help="Rollouts of the same model on another task, from --save-rollouts: does that "
            "task pull each layer the same way?",
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    pad_token: options.PadToken = None,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
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

    from layerpick.probes.base import Budget
    from layerpick.probes.table import chosen_probes
    from layerpick.probes.trials.on_policy import chosen_steps
    from layerpick.selector.prepare import ModelChoice, RolloutChoice
    from layerpick.selector.progress import reporting
    from layerpick.selector.suggestion.budget import read_budget
    from layerpick.selector.suggestion.picture import draw_suggestion
    from layerpick.selector.suggestion.report import print_suggestion
    from layerpick.selector.suggestion.run import suggest as make_suggestion
    from layerpick.training.tasks.base import TaskSettings

    asked = [probes, warmup_steps and "warm_up", also and "gradient"]
    sizes = Budget(warm_up_steps=chosen_steps(warmup_steps)) if warmup_steps else Budget()
    with reporting() as reporter:
        suggestion = make_suggestion(
            ModelChoice(model, revision, dtype, device, pad_token, allow_pickle, trust_remote_code),
            task,
            settings=TaskSettings(
                dataset=dataset,
                template=options.read_template(template),
                stop=tuple(options.unescape(text) for text in stop or ()),
                reward=reward,
                all_or_nothing=all_or_nothing,
                unsafe_exec=unsafe_exec,
                env=env,
                max_turns=max_turns,
                invalid_penalty=invalid_penalty,
                system=system,
                instruction=options.read_instruction(instruction),
                chat_template_kwargs=options.read_chat_kwargs(chat_template_kwargs),
            ),
            algorithm=algorithm,
            rollouts=RolloutChoice(
                prompts=prompts,
                group_size=group_size,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                rows=batch_size,
                reuse=rollouts,
                save=save_rollouts,
                also=also,
            ),
            probes=chosen_probes(",".join(name for name in asked if name)),
            budget=sizes,
            spending=read_budget(budget, confidence) if budget is not None else None,
            seed=seed,
            reporter=reporter,
        )
    suggestion.save(out / "suggestion.json")
    draw_suggestion(suggestion, out / "profile.png")
    if as_json:
        sys.stdout.write(suggestion.to_json())
        return
    print_suggestion(suggestion, Console())
    print(f"Written: {out / 'suggestion.json'} and {out / 'profile.png'}", file=sys.stderr)
