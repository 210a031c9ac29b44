"""GiGPO (arXiv 2505.10978) as a GRPOTrainer: each turn of an episode has its own advantage."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from layerpick.training.batches.padded import collate, token_values
from layerpick.training.trl.trainer import LayerTrainer


class GiGpoTrainer(LayerTrainer):
    """TRL's clipped loss with advantages of shape (rows, tokens), 0 where the world wrote."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Replace TRL's advantage of each episode by the algorithm's of each turn."""
        output = super()._generate_and_score_completions(inputs)
        work, size = self.work, self.work.settings.group_size
        groups = [self.episodes[i : i + size] for i in range(0, len(self.episodes), size)]
        turns = [values for group in groups for values in work.algorithm.advantages(group)]
        batch = collate(self.episodes, work.model.tokenizer.pad_token_id, work.model.device)
        advantages = token_values(self.episodes, turns, batch)
        columns = output["completion_ids"].shape[1]
        output["advantages"] = F.pad(advantages, (0, columns - batch.columns))
        self._metrics["train"]["signal"][-1] = float(advantages.any())
        return output
