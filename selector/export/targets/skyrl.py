"""SkyRL 0.3: PEFT's `target_modules`, as full names.

The setting is declared as text; a list goes through to PEFT as it is, whereas a pattern would be
taken apart into letters when the adapter goes to vLLM.
"""

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
MADE_FOR = "SkyRL 0.3 (FSDP)"


def files(plan: Plan) -> Mapping[str, str]:
    """Options for its command, without data and environment."""
    model = "trainer.policy.model"
    text = command(
        "python3 -m skyrl.train.entrypoints.main_base",
        "trainer.algorithm.advantage_estimator=grpo trainer.strategy=fsdp2",
        quoted(f"{model}.path={plan.model}"),
        f"{model}.lora.rank={RANK} {model}.lora.alpha={ALPHA}",
        quoted(f"{model}.lora.target_modules={hydra_list(linear_names(plan))}"),
        f"trainer.policy.optimizer_config.lr={lora_rate(plan):g}",
        f"generator.n_samples_per_prompt={plan.group_size}",
        f"generator.sampling_params.max_generate_length={plan.max_new_tokens}",
        f"generator.sampling_params.temperature={plan.temperature:g}",
    )
    note = "Add data.train_data, data.val_data and environment.env_class."
    return {"train.sh": header(plan, MADE_FOR, note, LORA_NOTE) + text}
