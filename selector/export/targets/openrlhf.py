"""OpenRLHF 0.11: PEFT's `target_modules`, as full names, which PEFT compares as they are."""

from __future__ import annotations

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

WANTS_ROWS = False
MADE_FOR = "OpenRLHF 0.11"
ESTIMATORS = {"grpo": "group_norm", "dr_grpo": "dr_grpo"}
"""Its names of the algorithms; GRPO for those it does not have."""


def files(plan: Plan) -> Mapping[str, str]:
    """Options for its command, without data and reward."""
    estimator = ESTIMATORS.get(plan.algorithm, "group_norm")
    text = command(
        "python3 -m openrlhf.cli.train_ppo_ray",
        quoted("--actor.model_name_or_path", plan.model),
        f"--ds.lora.rank {RANK} --ds.lora.alpha {ALPHA}",
        f"--ds.lora.target_modules {quoted(*linear_names(plan))}",
        f"--algo.advantage.estimator {estimator}",
        f"--actor.adam.lr {lora_rate(plan):g}",
        f"--rollout.n_samples_per_prompt {plan.group_size}",
        f"--rollout.max_new_tokens {plan.max_new_tokens}",
        f"--rollout.temperature {plan.temperature:g}",
    )
    note = "Add your data, reward and the places of Ray's workers."
    return {"train.sh": header(plan, MADE_FOR, note, LORA_NOTE) + text}
