"""TRL 1.16: `GRPOTrainer` with everything frozen but the layers, and `trl grpo` with LoRA in them.

TRL leaves `requires_grad` as it finds it, and gives the optimizer what requires gradients.
`--lora_target_modules` takes full names here: one value alone would be a pattern, of which PEFT
keeps the last parts of names only where a model has experts, and then adapts every layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from layerpick.selector.export.plan import Plan, header
from layerpick.selector.export.targets.shared import (
    ALPHA,
    LORA_NOTE,
    RANK,
    command,
    linear_names,
    lora_rate,
    quoted,
)
from layerpick.training.errors import LayerpickError

WANTS_ROWS = True
MADE_FOR = "TRL 1.16"
LOSSES = {"grpo": ("grpo", "group"), "dr_grpo": ("dr_grpo", "none")}
"""TRL's `loss_type` and `scale_rewards`."""
_TRAIN = '''\
"""GRPO on the chosen layers alone, everything else frozen: python train.py"""

import torch
from datasets import load_dataset
from reward import reward
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

MODEL, REVISION = {model!r}, {revision!r}
TRAINED = {prefixes!r}


def main():
    # float32, as TRL loads models: small updates would be lost in bfloat16.
    model = AutoModelForCausalLM.from_pretrained(MODEL, revision=REVISION, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(MODEL, revision=REVISION, padding_side="left")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(TRAINED)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{{trained:,}} of {{model.num_parameters():,}} parameters are trained.")
    config = GRPOConfig(
        output_dir="trained",
        max_steps={steps},
        learning_rate={learning_rate!r},
        lr_scheduler_type="constant",
        per_device_train_batch_size={batch},
        num_generations={group_size},
        max_completion_length={max_new_tokens},
        temperature={temperature!r},
        chat_template_kwargs={chat!r},
        loss_type={loss!r},
        scale_rewards={scale!r},
        beta={beta!r},
        shuffle_dataset=False,
        # It would bring back the graph below the trained layers.
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=reward,
        args=config,
        train_dataset=load_dataset("data", split="train"),
    )
    trainer.train()
    trainer.save_model()
    tokenizer.save_pretrained("trained")


if __name__ == "__main__":
    main()
'''
_REWARD = '''\
"""The task's own judge, with TRL's signature; put another function here as you like."""

import json

from layerpick.training.tasks.base import Prompt
from layerpick.training.tasks.settings import TaskSettings
from layerpick.training.tasks.table import make_task

TASK = make_task({task!r}, TaskSettings())
STOP = {stop!r}


def reward(completions, row, **_):
    """The reward of each completion; `row` holds each prompt's text and columns as JSON."""
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    for end in STOP:
        texts = [text.partition(end)[0] for text in texts]
    asked = [Prompt(*json.loads(each), "data/train.jsonl") for each in row]
    return TASK.rewards(asked, texts)
'''


def files(plan: Plan) -> Mapping[str, str]:
    """A script, its data and reward, and a command for LoRA."""
    if plan.task == "agentic":
        raise LayerpickError(
            "TRL's own scripts play no text worlds: train the agentic task with `layerpick train`, "
            "which uses TRL's trainer."
        )
    if plan.algorithm not in LOSSES:
        raise LayerpickError(
            f"TRL has no {plan.algorithm}: export a suggestion or run with {' or '.join(LOSSES)}."
        )
    loss, scale = LOSSES[plan.algorithm]
    values = {
        "model": plan.model,
        "revision": plan.revision,
        "prefixes": plan.names.prefixes,
        "steps": plan.steps,
        "learning_rate": plan.learning_rate,
        "batch": plan.prompts * plan.group_size,
        "group_size": plan.group_size,
        "max_new_tokens": plan.max_new_tokens,
        "temperature": plan.temperature,
        "chat": dict(plan.chat_template_kwargs) or None,
        "beta": plan.beta,
        "loss": loss,
        "scale": scale,
    }
    needs = "It runs as it is; pip install layerpick trl, whose judge and trainer it uses."
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plan.rows)
    return {
        "train.py": header(plan, MADE_FOR, needs) + _TRAIN.format(**values),
        "reward.py": _REWARD.format(task=plan.task, stop=plan.stop),
        "data/train.jsonl": rows,
        "train_lora.sh": header(
            plan,
            MADE_FOR,
            "Needs PEFT too: pip install peft. On a CPU add: --use_cpu --bf16 false",
            LORA_NOTE,
        )
        + _lora(plan, loss, scale),
    }


def _lora(plan: Plan, loss: str, scale: str) -> str:
    chat = json.dumps(dict(plan.chat_template_kwargs))
    kwargs = [quoted("--chat_template_kwargs", chat)] if plan.chat_template_kwargs else []
    revision = [quoted("--model_revision", plan.revision)] if plan.revision else []
    return command(
        "trl grpo",
        quoted("--model_name_or_path", plan.model),
        *revision,
        "--dataset_name data --reward_funcs reward.reward",
        f"--use_peft --lora_r {RANK} --lora_alpha {ALPHA}",
        quoted("--lora_target_modules", *linear_names(plan)),
        f"--learning_rate {lora_rate(plan):g} --lr_scheduler_type constant",
        f"--max_steps {plan.steps} --per_device_train_batch_size {plan.prompts * plan.group_size}",
        f"--num_generations {plan.group_size} --max_completion_length {plan.max_new_tokens}",
        *kwargs,
        f"--temperature {plan.temperature:g} --loss_type {loss} --scale_rewards {scale}",
        f"--beta {plan.beta:g} --shuffle_dataset false --output_dir trained-lora",
        "--save_strategy no --report_to none",
    )
