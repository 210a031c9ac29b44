"""Any algorithm as a GRPOTrainer: each turn of an episode has the advantage that it names."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from layerpick.training.batches.padded import collate, token_values
from layerpick.training.episodes.trajectory import Trajectory
from layerpick.training.trl.trainer import LayerTrainer


class OwnAdvantagesTrainer(LayerTrainer):
    """TRL's clipped loss with advantages of shape (rows, tokens), 0 where the world wrote.

    TRL gives each trajectory the weight 1, that is 1 / length for each of its tokens. An algorithm
    that weighs tokens otherwise has its advantages scaled by the ratio, which is the same loss (but
    for a KL penalty, whose tokens keep TRL's weight).
    """

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Replace TRL's advantage of each episode by the algorithm's of each turn."""
        output = super()._generate_and_score_completions(inputs)
        work, size = self.work, self.work.settings.group_size
        groups = [self.episodes[i : i + size] for i in range(0, len(self.episodes), size)]
        turns = [
            values * self._weight(episode)
            for group in groups
            for episode, values in zip(group, work.algorithm.advantages(group), strict=True)
        ]
        batch = collate(self.episodes, work.model.tokenizer.pad_token_id, work.model.device)
        advantages = token_values(self.episodes, turns, batch)
        columns = output["completion_ids"].shape[1]
        output["advantages"] = F.pad(advantages, (0, columns - batch.columns))
        self._metrics["train"]["signal"][-1] = float(advantages.any())
        return output

    def _weight(self, episode: Trajectory) -> float:
        """The algorithm's weight of a token over TRL's."""
        longest = self.work.sampling.max_new_tokens * self.work.task.max_turns
        own = self.work.algorithm.token_weight(episode.generated, longest)
        return own / (1.0 / max(episode.generated, 1))
