"""`layerpick auto`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector import options
from layerpick.selector.training_run import options as training


def auto(
    model: options.Model = None,
    task: options.TaskName = "math",
    algorithm: options.Algorithm = None,
    with_full: Annotated[
        bool,
        typer.Option(
            "--with-full",
            help="Also train all parameters, to measure how much of that gain the layer recovers.",
        ),
    ] = False,
    sweeps: Annotated[
        Path,
        typer.Option(
            help="Folder of measured sweeps: one that fits is used in place of a full run.",
            file_okay=False,
        ),
    ] = Path("sweeps"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything; runs/MODEL/TASK-ALGORITHM/… if left out. The same command "
            "goes on where it was killed.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    steps: training.Steps = 60,
    learning_rate: training.LearningRate = None,
    kl: training.Kl = 0.0,
    clip: training.Clip = 0.2,
    max_grad_norm: training.MaxGradNorm = 1.0,
    micro_batch: training.MicroBatch = None,
    gradient_checkpointing: training.GradientCheckpointing = False,
    checkpoint_every: training.CheckpointEvery = 10,
    vllm: training.Vllm = None,
    report_to: training.ReportTo = None,
    trl: training.Trl = None,
    heldout_prompts: training.HeldoutPrompts = 256,
    heldout_samples: training.HeldoutSamples = 4,
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
    prompts: options.Prompts = 16,
    group_size: options.GroupSize = 8,
    max_new_tokens: options.MaxNewTokens = None,
    temperature: options.Temperature = None,
    batch_size: options.Rows = 2048,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    pad_token: options.PadToken = None,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Suggest a layer, train it, score it, and compare with what is measured.

    Measured is a stored sweep if one fits, or the full-parameter run with --with-full; without \
either, the score before and after.

    Examples:

      layerpick auto --with-full

      layerpick auto Qwen/Qwen3-4B --task math --steps 200
    """
    from rich.console import Console

    from layerpick.selector.auto.run import run_auto
    from layerpick.selector.prepare import ModelChoice, RolloutChoice
    from layerpick.selector.progress import reporting
    from layerpick.selector.training_run.report import sentences
    from layerpick.selector.verification.command import write
    from layerpick.selector.verification.report import print_verification
    from layerpick.training.tasks.base import TaskSettings
    from layerpick.training.trl.options import parse_trl_options

    parse_trl_options(trl or ())  # a wrong one should not wait for the model to load
    with reporting() as reporter:
        outcome = run_auto(
            ModelChoice(model, revision, dtype, device, pad_token, allow_pickle, trust_remote_code),
            task,
            TaskSettings(
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
            training.TrainingChoice(
                algorithm=algorithm,
                steps=steps,
                learning_rate=learning_rate,
                kl=kl,
                clip=clip,
                max_grad_norm=max_grad_norm,
                micro_batch=micro_batch,
                gradient_checkpointing=gradient_checkpointing,
                checkpoint_every=checkpoint_every,
                vllm=vllm,
                report_to=report_to or (),
                trl=trl or (),
                heldout_prompts=heldout_prompts,
                heldout_samples=heldout_samples,
                seed=seed,
            ),
            RolloutChoice(
                prompts=prompts,
                group_size=group_size,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                rows=batch_size,
            ),
            with_full=with_full,
            sweeps=sweeps,
            out=out,
            reporter=reporter,
        )
    write(outcome.verification, outcome.place)
    if as_json:
        answer = {
            "headline": outcome.headline,
            "verification": outcome.verification.model_dump(mode="json"),
            "run": outcome.picked.result.model_dump(mode="json"),
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    console = Console()
    for run in (outcome.picked, outcome.full):
        for line in sentences(run) if run else ():
            console.print(line, soft_wrap=True, highlight=False)
    print_verification(outcome.verification, console)
    print(f"Written: {outcome.place}", file=sys.stderr)
    console.print(f"[bold]{outcome.headline}[/bold]", soft_wrap=True, highlight=False)
