"""A reward of one's own, with TRL's signature.

    layerpick suggest MODEL --dataset rows.jsonl --reward examples/own_reward.py:short_and_right

Every column of the data set comes as a list, one value for each completion.
"""


def short_and_right(completions: list[str], answer: list[str], **_) -> list[float]:
    """1 for the right number, and up to 0.1 more for saying little else."""
    return [
        float(wanted in text.split()) + 0.1 * max(0.0, 1 - len(text) / 200)
        for text, wanted in zip(completions, answer, strict=True)
    ]
