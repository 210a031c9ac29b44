"""`layerpick train` and `layerpick apply`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector import options
from layerpick.selector.training_run import options as training


def train(
    model: options.Model = None,
    task: options.TaskName = "math",
    layer: Annotated[
        str,
        typer.Option(
            help="auto (the best of a suggestion), a number, several as 3,4, or all (every "
            "parameter of the model, embeddings and head too: full-parameter RL)."
        ),
    ] = "auto",
    algorithm: options.Algorithm = None,
    suggestion: training.SuggestionFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; runs/MODEL/TASK-ALGORITHM/… if left out. The same command "
            "goes on with a run that was killed.",
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
    """Train exactly the named decoder layers with RL (TRL), everything else frozen.

    Scores the model on held-out prompts before and after, and writes the trained layer by itself \
as layer_delta.safetensors, which `layerpick apply` merges into the base model.

    Examples:

      layerpick train --layer 3

      layerpick train Qwen/Qwen3-4B --task math --steps 200 --report-to trackio

      layerpick train ./my-model --layer 10,11 --trl lr_scheduler_type=cosine --trl warmup_steps=5
    """
    from rich.console import Console

    from layerpick.selector.prepare import ModelChoice, RolloutChoice, prepare
    from layerpick.selector.progress import reporting
    from layerpick.selector.training_run.advice import check_suggestion, find_suggestion
    from layerpick.selector.training_run.report import sentences
    from layerpick.selector.training_run.run import default_out, make_bench, run_training
    from layerpick.training.models.freezing import parse_layers
    from layerpick.training.tasks.base import TaskSettings
    from layerpick.training.trl.options import parse_trl_options

    choice = training.TrainingChoice(
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
    )
    parse_trl_options(choice.trl)  # a wrong one should not wait for the model to load
    chosen_model = ModelChoice(
        model, revision, dtype, device, pad_token, allow_pickle, trust_remote_code
    )
    settings = TaskSettings(
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
    )
    rollouts = RolloutChoice(
        prompts=prompts,
        group_size=group_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        rows=batch_size,
    )
    with reporting() as reporter:
        prepared = prepare(chosen_model, task, settings, rollouts)
        bench = make_bench(prepared, choice, rollouts)
        place = out or default_out(bench, layer.replace(",", "-"), seed)
        if layer == "auto":
            # Advice rests on more prompts than a step has.
            more = replace(rollouts, prompts=max(prompts, 32))
            advice = find_suggestion(
                suggestion, place, chosen_model, task, settings, choice, more, reporter
            )
            check_suggestion(advice, bench)
            layers: tuple[int, ...] | None = (advice.pick,)
        else:
            layers = parse_layers(layer, len(prepared.model.layers))
        trained = run_training(bench, layers, choice, place, reporter)
    if as_json:
        sys.stdout.write(trained.result.model_dump_json(indent=2) + "\n")
        return
    console = Console()
    for line in sentences(trained):
        console.print(line, soft_wrap=True, highlight=False)
    print(f"Written: {place}", file=sys.stderr)


def apply(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, or its layer_delta.safetensors.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="New folder for the merged model.", file_okay=False)],
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model, if it is no longer where it was in training.", show_default=False
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16 or float16; that of training if left out.", show_default=False
        ),
    ] = None,
    pad_token: options.PadToken = None,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Merge a run's trained layer into its base model: an ordinary Hugging Face folder.

    Refuses a base model with other weights than those that the layer was trained in.

    Example: layerpick apply runs/reference-math/math-grpo/3-seed0 --out my-model
    """
    from layerpick.training.runs.delta import apply_delta

    origin = apply_delta(
        run,
        out,
        base,
        dtype=dtype,
        device="cpu",
        pad_token=pad_token,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    print(f"Written: {out} ({origin.base_model} with {origin.trained} trained)", file=sys.stderr)
