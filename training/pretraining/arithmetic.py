"""Sums of a few small numbers, with demonstrations that are partly wrong.

The expressions are those of reasoning-gym's `chain_sum`, so a model that learned from them reads
that data set's prompts as they come.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from layerpick.training.pretraining.pretrain import Corpus, Document

PROMPT = "{expression} ="
"""What the model reads; it is the task's template as well."""


def noisy_sums(wrong: float, **options: int) -> Corpus:
    """Demonstrations such as ("4 + 6 =", " 10\\n"), a share `wrong` of them with a wrong answer.

    `options` are those of `chain_sum`, such as `max_terms`.
    """

    def documents(generator: random.Random) -> Iterator[Document]:
        import reasoning_gym

        while True:
            seed = generator.getrandbits(31)
            for row in reasoning_gym.create_dataset("chain_sum", seed=seed, size=5000, **options):
                answer = int(row["answer"])
                if generator.random() < wrong:
                    answer = mistake(answer, generator)
                yield PROMPT.format(**row["metadata"]), f" {answer}\n"

    return documents


def mistake(answer: int, generator: random.Random) -> int:
    """A wrong answer of a common kind: off by one, two or ten, or with its sign lost."""
    slips = [answer + slip for slip in (-10, -2, -1, 1, 2, 10)]
    return generator.choice(slips if answer == 0 else [*slips, -answer])
