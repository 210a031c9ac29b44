"""`layerpick sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerpick.selector import options
from layerpick.training.errors import LayerpickError

SWEEP = "Sweep"


def sweep(
    model: options.Model = None,
    task: options.TaskName = "math",
    algorithm: options.Algorithm = None,
    layers: Annotated[
        str, typer.Option(help="all, 0,4,8 (numbers), middle:5 or every:3.", rich_help_panel=SWEEP)
    ] = "all",
    seeds: Annotated[
        int, typer.Option(help="Repetitions of everything.", min=1, rich_help_panel=SWEEP)
    ] = 1,
    engine: Annotated[
        str,
        typer.Option(
            help="multiplexed (all layers in one pass) or trl (one TRL run after another).",
            rich_help_panel=SWEEP,
        ),
    ] = "multiplexed",
    steps: Annotated[
        int, typer.Option(help="RL steps of every run.", min=1, rich_help_panel=SWEEP)
    ] = 60,
    lr_grid: Annotated[
        str | None,
        typer.Option(
            help="Learning rates, separated by commas: every policy is trained at each, and has "
            "the one that is best for it. By the model's size if left out.",
            rich_help_panel=SWEEP,
            show_default=False,
        ),
    ] = None,
    shared_lr: Annotated[
        bool,
        typer.Option(
            "--shared-lr",
            help="One learning rate for all, the best of the full run, as in arXiv 2607.01232.",
            rich_help_panel=SWEEP,
        ),
    ] = False,
    kl: Annotated[
        float,
        typer.Option(
            help="Weight of the KL divergence from the base model.", min=0, rich_help_panel=SWEEP
        ),
    ] = 0.0,
    heldout_prompts: Annotated[
        int, typer.Option(help="Held-out prompts to score on.", min=2, rich_help_panel=SWEEP)
    ] = 256,
    heldout_samples: Annotated[
        int, typer.Option(help="Completions for each of them.", min=1, rich_help_panel=SWEEP)
    ] = 4,
    policies_per_pass: Annotated[
        str,
        typer.Option(help="auto (as many as fit), or a number.", rich_help_panel=SWEEP),
    ] = "auto",
    on: options.On = None,
    gpus_per_pass: options.GpusPerPass = None,
    memory_per_pass: options.MemoryPerPass = None,
    probes: Annotated[
        str,
        typer.Option(
            help="Probes whose features are kept beside the runs, for `layerpick calibrate`: as "
            "in `layerpick suggest`, or none.",
            rich_help_panel=SWEEP,
        ),
    ] = "all",
    probe_prompts: Annotated[
        int, typer.Option(help="Prompts that they read.", min=2, rich_help_panel=SWEEP)
    ] = 64,
    out: Annotated[
        Path, typer.Option(help="Folder of all sweeps.", file_okay=False, rich_help_panel=SWEEP)
    ] = Path("sweeps"),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of this sweep's folder below the model's, as math-svamp, where several data "
            "sets are swept; TASK-ALGORITHM if left out.",
            rich_help_panel=SWEEP,
            show_default=False,
        ),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(
            help="Measure nothing; read the sweeps in this folder.", rich_help_panel=SWEEP
        ),
    ] = None,
    as_json: options.Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, and nothing else, to stdout.")
    ] = False,
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
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    pad_token: options.PadToken = None,
    allow_pickle: options.AllowPickle = False,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Measure which layer RL should train: every layer alone, against full-parameter RL.

    Scores the model, trains it in full and each layer alone, and scores every result on held-out \
prompts. All are trained at every learning rate of a grid; the best one for each is chosen on one \
half of the held-out prompts and scored on the other, both ways round. What is in the folder \
already is not measured again, so a sweep can be stopped and started at any time, and several can \
fill one folder.

    Examples:

      layerpick sweep --seeds 3

      layerpick sweep HuggingFaceTB/SmolLM2-135M --lr-grid 1e-5,3e-5,1e-4 --layers every:5

      layerpick sweep Qwen/Qwen3-4B --seeds 3 --on ray://head:10001

      layerpick sweep --show sweeps
    """
    from layerpick.calibration.sweeps.store import sweep_folders
    from layerpick.probes.table import chosen_probes
    from layerpick.selector.prepare import ModelChoice, RolloutChoice
    from layerpick.selector.progress import reporting
    from layerpick.selector.sweep.recipe import BenchRecipe, ClusterChoice, SweepChoice
    from layerpick.selector.sweep.run import measure_sweep
    from layerpick.training.tasks.base import TaskSettings

    if as_json and as_csv:
        raise LayerpickError("Choose one of --json and --csv.")
    if show is not None:
        return _print(sweep_folders(show), as_json, as_csv)
    with reporting() as reporter:
        recipe = BenchRecipe(
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
            algorithm,
            RolloutChoice(
                prompts=prompts,
                group_size=group_size,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                rows=batch_size,
            ),
            SweepChoice(
                layers=layers,
                seeds=seeds,
                engine=engine,
                steps=steps,
                learning_rates=_rates(lr_grid),
                rates="shared" if shared_lr else "own",
                name=name,
                beta=kl,
                heldout_prompts=heldout_prompts,
                heldout_samples=heldout_samples,
                policies_per_pass=_group(policies_per_pass),
                probes=() if probes == "none" else chosen_probes(probes),
                probe_prompts=probe_prompts,
            ),
        )
        cluster = ClusterChoice(on, gpus_per_pass, memory_per_pass)
        folder = measure_sweep(recipe, out, reporter, cluster)
    return _print([folder], as_json, as_csv)


def _print(folders: list[Path], as_json: bool, as_csv: bool) -> None:
    from rich.console import Console

    from layerpick.calibration.sweeps.measured import read_sweep
    from layerpick.calibration.sweeps.store import PICTURE, read_folder
    from layerpick.selector.sweep import report as sweep_report
    from layerpick.selector.sweep.picture import draw_sweep

    readings = [read_sweep(read_folder(folder)) for folder in folders]
    if as_json:
        sys.stdout.write(sweep_report.to_json(readings))
        return
    if as_csv:
        sys.stdout.write(sweep_report.to_csv(readings))
        return
    for reading, folder in zip(readings, folders, strict=True):
        sweep_report.print_sweep(reading, Console())
        draw_sweep(reading, folder / PICTURE)
        print(f"Written: {folder / PICTURE}", file=sys.stderr)


def _rates(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        rates = tuple(float(rate) for rate in text.split(","))
    except ValueError:
        rates = ()
    if not rates or min(rates) <= 0:
        raise LayerpickError(f"--lr-grid '{text}' is not a list of positive numbers, as 1e-5,3e-5.")
    return tuple(dict.fromkeys(rates))


def _group(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise LayerpickError(f"--policies-per-pass '{text}' is neither auto nor a number above 0.")
    return int(text)
