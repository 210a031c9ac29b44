"""A task of one's own: end a line with the word that rhymes.

layerpick suggest MODEL --task examples/own_task.py:Rhymes
"""

import random
from collections.abc import Sequence

from layerpick.training.tasks.base import Prompt, SingleTurnTask, Split

FAMILIES = (
    ("night", "light", "bright", "sight"),
    ("day", "way", "stay", "play"),
    ("rain", "train", "plain", "grain"),
    ("stone", "bone", "alone", "tone"),
)


class Rhymes(SingleTurnTask):
    """Reward 1 if the last word of the completion rhymes with the word asked about, else 0."""

    name = "rhymes"
    max_new_tokens = 8

    def prompts(self, split: Split, count: int, seed: int) -> tuple[Prompt, ...]:
        """Two families of words are for training, two are held out."""
        generator = random.Random(f"{split} {seed}")
        own = FAMILIES[:2] if split == "train" else FAMILIES[2:]
        words = [generator.choice(generator.choice(own)) for _ in range(count)]
        return tuple(
            Prompt(f"A word that rhymes with {word}:", {"word": word}, f"rhymes[{index}]")
            for index, word in enumerate(words)
        )

    def rewards(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """1.0 for another word of the same family."""
        return [
            float(self._rhymes(prompt.columns["word"], completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    @property
    def source(self) -> str:
        """What a person calls the data."""
        return "sixteen words"

    def fingerprint(self) -> str:
        """Changes whenever the data does."""
        return "-".join(word for family in FAMILIES for word in family)

    @staticmethod
    def _rhymes(word: str, completion: str) -> bool:
        last = (completion.lower().strip(" .!\n").split() or [""])[-1]
        return last != word and any(word in family and last in family for family in FAMILIES)
