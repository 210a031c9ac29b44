import numpy as np
import pytest
import torch

from layerpick.training.episodes.decoding import Decoder, draw_tokens
from layerpick.training.episodes.play import SamplingSettings, play
from layerpick.training.errors import LayerpickError
from layerpick.training.progress import Unseen
from layerpick.training.tasks.base import (
    Episodes,
    Prompt,
    SingleTurnTask,
    StepResult,
    Task,
    TaskSettings,
)


class Length(SingleTurnTask):
    """Rewards the number of characters written."""

    name = "length"
    source = "test"

    def prompts(self, split, count, seed):
        texts = ("ab", "abcdefgh", "x", "some longer text")
        return tuple(Prompt(texts[i % 4], {}, f"row {i}") for i in range(count))

    def rewards(self, prompts, completions):
        return [float(len(text)) for text in completions]

    def fingerprint(self):
        return "length"


class Echo(Task):
    """Several turns: answers with its own words in brackets, a different number of times."""

    name = "echo"
    source = "test"
    max_turns = 3

    def prompts(self, split, count, seed):
        return tuple(Prompt("start" + "!" * i, {"turns": 1 + i % 3}, "row") for i in range(count))

    def open(self, prompts):
        return EchoEpisodes([prompt.columns["turns"] for prompt in prompts])

    def fingerprint(self):
        return "echo"


class EchoEpisodes(Episodes):
    def __init__(self, left):
        self.left = list(left)
        self.closed = False

    def step(self, actions):
        results = {}
        for index, text in actions.items():
            self.left[index] -= 1
            done = self.left[index] == 0
            results[index] = StepResult(1.0, done, "" if done else f"[{len(text)}{'z' * index}]")
        return results

    def close(self):
        self.closed = True


def reference_log_probs(model, tokens):
    """Plain forward pass over one sequence, without padding or cache."""
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([tokens])).logits[0].float()


def assert_tokens_follow_the_noise(model, trajectory, generator, limit, temperature):
    """Replay an episode with full forward passes: every token must be what the noise picks."""
    for turn in trajectory.turns:
        uniforms = generator.random(limit)
        for step, position in enumerate(range(turn.start, turn.end)):
            logits = reference_log_probs(model, trajectory.tokens[:position])[-1]
            probabilities = torch.softmax(logits.double() / temperature, -1)
            cumulative = probabilities.cumsum(-1).numpy()
            token = trajectory.tokens[position]
            below = cumulative[token - 1] if token else 0.0
            assert below - 1e-4 <= uniforms[step] * cumulative[-1] <= cumulative[token] + 1e-4


def test_cached_decoding_equals_full_forward_passes(tiny, family):
    """Padding, the cache, waiting rows and turns must not change what a row would write alone."""
    model = tiny(family)
    settings = SamplingSettings(max_new_tokens=5, temperature=0.9, stop=("e",), rows=8)
    for task in (Length(TaskSettings()), Echo(TaskSettings())):
        prompts = task.prompts("train", 3, 0)
        trajectories = play(model, task, prompts, 2, settings, seed=7)
        for index, trajectory in enumerate(trajectories):
            noise = np.random.default_rng([7, 0, index // 2, index % 2])
            assert_tokens_follow_the_noise(model, trajectory, noise, 5, 0.9)


def test_an_episode_does_not_depend_on_what_shares_its_batch(tiny):
    model, task = tiny("llama"), Length(TaskSettings())
    prompts = task.prompts("train", 4, 0)
    together = play(model, task, prompts, 3, SamplingSettings(6, rows=64), seed=1)
    apart = play(model, task, prompts, 3, SamplingSettings(6, rows=1), seed=1)
    assert together == apart
    assert together != play(model, task, prompts, 3, SamplingSettings(6), seed=2)
    assert together != play(model, task, prompts, 3, SamplingSettings(6), seed=1, streams=(1,))


def test_turns_mark_exactly_what_the_model_wrote(tiny):
    model, task = tiny("qwen3"), Echo(TaskSettings())
    prompts = task.prompts("train", 3, 0)
    decode = model.tokenizer.decode
    for trajectory in play(model, task, prompts, 2, SamplingSettings(4), seed=0):
        prompt = prompts[trajectory.group]
        assert decode(trajectory.tokens[: trajectory.prompt_length]) == prompt.content
        assert len(trajectory.turns) == prompt.columns["turns"]
        assert trajectory.reward == prompt.columns["turns"]
        # Between turns stands what the environment said, which names the length of the turn.
        for turn, following in zip(trajectory.turns, trajectory.turns[1:], strict=False):
            said = decode(trajectory.tokens[turn.end : following.start])
            text = decode(trajectory.tokens[turn.start : turn.end], skip_special_tokens=True)
            assert said.rstrip("z]") == f"[{len(text)}"
        assert trajectory.model_mask.sum() == trajectory.generated


def test_stop_strings_end_a_turn_and_are_cut_from_its_text(tiny):
    model = tiny("gpt2")
    seen = []

    class Spy(Length):
        def rewards(self, prompts, completions):
            seen.extend(completions)
            return super().rewards(prompts, completions)

    task = Spy(TaskSettings())
    stops = (*"AEIOU", "tn")
    settings = SamplingSettings(12, temperature=2.0, stop=stops)
    trajectories = play(model, task, task.prompts("train", 4, 0), 8, settings, seed=0)
    ended = 0
    for text, trajectory in zip(seen, trajectories, strict=True):
        assert not any(stop in text for stop in stops)
        (turn,) = trajectory.turns
        raw = model.tokenizer.decode(trajectory.tokens[turn.start : turn.end])
        assert not any(stop in raw[:-1] for stop in "AEIOU")
        ended += turn.end - turn.start < 12
    assert ended > 5


def test_episodes_are_closed_even_when_they_fail(tiny):
    opened = []

    class Broken(Echo):
        def open(self, prompts):
            opened.append(EchoEpisodes([1] * len(prompts)))
            opened[-1].step = lambda actions: 1 / 0
            return opened[-1]

    task = Broken(TaskSettings())
    with pytest.raises(ZeroDivisionError):
        play(tiny("qwen3"), task, task.prompts("train", 1, 0), 1, SamplingSettings(2), seed=0)
    assert opened[0].closed


def test_prompts_longer_than_the_context_are_named(tiny):
    task = Length(TaskSettings())
    prompt = Prompt("a" * 250, {}, "rows.jsonl:17")
    with pytest.raises(LayerpickError, match=r"rows\.jsonl:17 .* 250 tokens.*context of 256"):
        play(tiny("qwen3"), task, [prompt], 1, SamplingSettings(10), seed=0)


def test_an_episode_that_outgrows_the_context_says_so(tiny):
    task = Echo(TaskSettings())
    prompt = Prompt("a" * 240, {"turns": 3}, "row")
    (trajectory,) = play(tiny("qwen3"), task, [prompt], 1, SamplingSettings(10), seed=0)
    assert len(trajectory.turns) < 3 and "context of 256" in trajectory.failure


def test_drawing_inverts_the_cumulative_distribution():
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).repeat(5, 1)
    uniforms = torch.tensor([0.05, 0.15, 0.69, 0.71, 0.9999999], dtype=torch.float64)
    assert draw_tokens(probabilities.log(), 1.0, uniforms).tolist() == [0, 2, 2, 3, 3]
    assert draw_tokens(probabilities.log(), 0.0, uniforms).tolist() == [2] * 5
    generator = np.random.default_rng(0)
    drawn = draw_tokens(
        probabilities[:1].log().repeat(20000, 1), 1.0, torch.from_numpy(generator.random(20000))
    )
    shares = np.bincount(drawn, minlength=4) / 20000
    assert shares == pytest.approx([0.1, 0, 0.6, 0.3], abs=0.012)


def test_keep_reorders_rows(tiny):
    model = tiny("llama")
    decoder = Decoder(model.model, 0, 3)
    decoder.extend([[5, 6, 7], [8], [9, 10]])
    decoder.keep([2, 0])
    logits = decoder.extend([[11], [12]])
    for row, tokens in enumerate([[9, 10, 11], [5, 6, 7, 12]]):
        assert torch.allclose(logits[row], reference_log_probs(model, tokens)[-1], atol=1e-4)


def test_no_more_rows_are_decoded_at_a_time_than_memory_holds(tiny, monkeypatch):
    """Caches and logits may take an eighth of it; what is written is the same."""
    from layerpick.training.episodes import play as module

    model, task = tiny("qwen3"), Length(TaskSettings())
    prompts = task.prompts("train", 2, 0)
    settings = SamplingSettings(5, rows=64)
    whole = play(model, task, prompts, 4, settings, seed=0)
    config = model.model.config
    kept = 4 * 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers
    row = 10 * kept + 12 * config.vocab_size
    monkeypatch.setattr(module, "device_memory", lambda _: 1e9)
    weights = 4 * sum(each.numel() for each in model.model.parameters())
    assert module.rows_that_fit(model, 10) == int(1e9 / 8 / row)
    monkeypatch.setattr(module, "device_memory", lambda _: weights + 10 * row)
    assert module.rows_that_fit(model, 10) == min(5, int((weights + 10 * row) / 8 / row))
    monkeypatch.setattr(module, "device_memory", lambda _: weights + 6 * row)
    assert module.rows_that_fit(model, 10) == 3
    assert module.rows_that_fit(model, 10_000) == 1
    ended = []
    watch = type("Watch", (Unseen,), {"ended": lambda _, count: ended.append(count)})
    again = play(model, task, prompts, 4, settings, seed=0, progress=watch())
    assert [each.tokens for each in again] == [each.tokens for each in whole]
    assert sum(ended) == 8 and max(ended) < 8
