"""What a person is shown of episodes, and what they are told when nothing can be learned."""

import pytest

from layerpick.training.episodes.play import SamplingSettings, Stops, play
from layerpick.training.episodes.transcripts import (
    Transcript,
    share_readable,
    shortened,
    transcribe,
    why_no_signal,
)
from layerpick.training.tasks.base import TaskSettings
from layerpick.training.tasks.math import MathTask

SUMS = "reasoning-gym:chain_sum?max_digits=2"


def told(reward=0.0, cut=False, answer="7", group=0) -> Transcript:
    return Transcript(group, "What is 2 + 3?", "It is 7.", answer, "5", reward, cut, 4)


@pytest.mark.parametrize(
    ("episodes", "said"),
    [
        ([told(cut=True)] * 3 + [told()], "75% of the completions were cut off at 64 tokens"),
        ([told(cut=True, answer=None)] * 4, "100% of the completions were cut off"),
        ([told(answer=None)] * 3 + [told()], "only 25% of the completions hold an answer"),
        ([told()] * 3 + [told(answer=None)], "75% .* hold an answer that can be read, and all"),
        ([told(reward=1.0)] * 4, "every completion is right"),
        ([told(1.0)] * 2 + [told(0.0, group=1)] * 2, "some prompts are always right"),
    ],
)
def test_the_cause_is_the_one_that_was_measured(episodes, said):
    import re

    text = why_no_signal(episodes, 64)
    assert re.match(said, text), text
    assert "asked “What is 2 + 3?” it wrote “It is 7.”" in text


def test_the_example_is_one_that_was_cut_where_that_is_the_cause():
    plain, cut = told(), Transcript(1, "Why?", "Because of", None, None, 0.0, True, 64)
    assert "asked “Why?” it wrote “Because of”" in why_no_signal([plain, cut, cut], 64)


def test_transcripts_say_what_the_episodes_hold(tiny):
    """A random model with stop strings that it often writes: some completions end, some do not."""
    model = tiny("qwen3")
    task = MathTask(TaskSettings(dataset=SUMS, template="{expression} =", stop=("a", "e", "i")))
    prompts = task.prompts("train", 3, 0)
    settings = SamplingSettings(20, temperature=1.5, stop=task.settings.stop)
    episodes = play(model, task, prompts, 4, settings, seed=1)
    found = transcribe(model, task, prompts, episodes)
    stops = Stops(model, task.settings.stop)
    for each, episode in zip(found, episodes, strict=True):
        written = list(episode.tokens[episode.prompt_length :])
        assert each.prompt == f"{prompts[each.group].columns['expression']} ="
        assert each.tokens == len(written) and each.reward == episode.reward
        assert each.completion == stops.text(written)
        assert each.expected == prompts[each.group].columns["answer"]
        # Cut: at full length, and nothing in it that ends a turn.
        ended = any(stop in model.tokenizer.decode(written) for stop in task.settings.stop)
        ended |= written[-1] in stops.end_tokens
        assert each.cut == (len(written) == 20 and not ended)
    assert 0 < sum(each.cut for each in found) < len(found)
    readable = [any(digit in each.completion for digit in "0123456789") for each in found]
    assert share_readable(found) <= sum(readable) / len(found)


def test_long_texts_lose_their_middle():
    assert shortened("a\n b  c", 20) == "a b c"
    assert shortened("x" * 50 + "y" * 50, 20) == "x" * 10 + " … " + "y" * 10
