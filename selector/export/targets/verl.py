"""verl 0.9: PEFT's `target_modules`, as full names, which PEFT compares as they are (FSDP)."""

from __future__ import annotations

from collections.abc import Mapping

from layerpick.selector.export.plan import Plan, header
from layerpick.selector.export.targets.shared import (
    ALPHA,
    LORA_NOTE,
    RANK,
    command,
    hydra_list,
    linear_names,
    lora_rate,
    quoted,
)

WANTS_ROWS = False
MADE_FOR = "verl 0.9 (FSDP)"


def files(plan: Plan) -> Mapping[str, str]:
    """A command, without data and reward."""
    model = "actor_rollout_ref.model"
    text = command(
        "python3 -m verl.trainer.main_ppo",
        "algorithm.adv_estimator=grpo",
        quoted(f"{model}.path={plan.model}"),
        f"{model}.lora_rank={RANK} {model}.lora_alpha={ALPHA}",
        quoted(f"{model}.target_modules={hydra_list(linear_names(plan))}"),
        f"actor_rollout_ref.actor.optim.lr={lora_rate(plan):g}",
        f"actor_rollout_ref.rollout.n={plan.group_size} data.train_batch_size={plan.prompts}",
        f"actor_rollout_ref.rollout.temperature={plan.temperature:g}",
        f"data.max_response_length={plan.max_new_tokens}",
        "actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.load_format=safetensors",
    )
    note = "Add data.train_files, data.val_files and your reward."
    return {"train.sh": header(plan, MADE_FOR, note, LORA_NOTE) + text}
