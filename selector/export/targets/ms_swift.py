"""ms-swift 4.6: everything is frozen by its ratio, then parameters are freed by their prefix."""

from __future__ import annotations

from collections.abc import Mapping

from layerpick.selector.export.plan import Plan, header
from layerpick.selector.export.targets.shared import command, quoted

WANTS_ROWS = False
MADE_FOR = "ms-swift 4.6"


def files(plan: Plan) -> Mapping[str, str]:
    """A command, without data and reward."""
    pattern = "|".join("^" + prefix.replace(".", r"\.") for prefix in plan.names.prefixes)
    revision = [quoted("--model_revision", plan.revision)] if plan.revision else []
    text = command(
        "swift rlhf --rlhf_type grpo --tuner_type full --use_hf true",
        quoted("--model", plan.model),
        *revision,
        f"--freeze_parameters_ratio 1 --trainable_parameters {quoted(*plan.names.prefixes)}",
        f"--learning_rate {plan.learning_rate:g} --lr_scheduler_type constant",
        f"--max_steps {plan.steps} --per_device_train_batch_size {plan.prompts * plan.group_size}",
        f"--num_generations {plan.group_size} --max_completion_length {plan.max_new_tokens}",
        f"--temperature {plan.temperature:g} --beta {plan.beta:g} --output_dir trained",
    )
    notes = (
        "Add --dataset and --reward_funcs.",
        f"In place of --trainable_parameters: --trainable_parameters_regex {quoted(pattern)}",
    )
    return {"train.sh": header(plan, MADE_FOR, *notes) + text}
