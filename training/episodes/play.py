"""Play a task's episodes with a model: from prompts to trajectories.

Episodes run in lock-step, one batch of rows after another. A row is one episode; its sampling
noise depends only on (seed, stream, group, sample), never on what else shares the batch.
A prompt is read once for all its samples. Finished rows leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from layerpick.training.episodes.decoding import Decoder, write_turns
from layerpick.training.episodes.rendering import Renderer
from layerpick.training.episodes.trajectory import Trajectory, Turn, hash_text
from layerpick.training.errors import LayerpickError
from layerpick.training.models.loading import LoadedModel
from layerpick.training.progress import UNSEEN, Writing
from layerpick.training.tasks.base import Episodes, Prompt, SingleTurnTask, StepResult, Task
from layerpick.training.tasks.forms import closing_token


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are sampled."""

    max_new_tokens: int
    """Longest turn, in tokens."""
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    """Strings that end a turn; the tokens that hold them are kept, the text is cut before."""
    rows: int = 64
    """Episodes of each policy that are decoded at a time."""


@dataclass(frozen=True)
class Slot:
    """Which episode a row of a batch plays: sample `sample` of prompt `group`."""

    group: int
    sample: int


def play(
    model: LoadedModel,
    task: Task,
    prompts: Sequence[Prompt],
    group_size: int,
    settings: SamplingSettings,
    *,
    seed: int,
    streams: Sequence[int] = (0,),
    make_decoder: Callable[[Sequence[int]], Decoder] | None = None,
    first: int = 0,
    progress: Writing = UNSEEN,
) -> list[Trajectory]:
    """Sample `group_size` episodes for each prompt; in order of stream, prompt, then sample.

    `streams` are independent repetitions under one seed. `make_decoder` gives the decoder of a
    batch from the index into `streams` of each of its rows, which never decreases; without it,
    `model` decodes all of them. `first` is the number of the first prompt where these are part of
    more: its noise is that of its place among all. `progress` is told of what is written.
    """
    make_decoder = make_decoder or (
        lambda owners: Decoder(model.model, model.tokenizer.pad_token_id, len(owners))
    )
    renderer = Renderer.of(model.tokenizer, task)
    tokens = [renderer.tokens(prompt) for prompt in prompts]
    _refuse_long_prompts(model, prompts, tokens, settings.max_new_tokens)
    slots = [
        (owner, Slot(group, sample))
        for owner in range(len(streams))
        for group in range(len(prompts))
        for sample in range(group_size)
    ]
    trajectories: list[Trajectory] = []
    longest = max(map(len, tokens), default=0) + settings.max_new_tokens * task.max_turns
    size = min(settings.rows * len(streams), rows_that_fit(model, longest))
    for start in range(0, len(slots), size):
        part = slots[start : start + size]
        rows = [
            _Row(
                index,
                owner,
                slot.group,
                prompts[slot.group],
                list(tokens[slot.group]),
                hash_text(prompts[slot.group].state or str(prompts[slot.group].content)),
                noise(seed, streams[owner], Slot(first + slot.group, slot.sample)),
            )
            for index, (owner, slot) in enumerate(part)
        ]
        single_turn = isinstance(task, SingleTurnTask)
        batch = _Batch(model, renderer, rows, settings, progress, single_turn=single_turn)
        episodes = task.open([row.prompt for row in rows])
        try:
            trajectories += batch.play(episodes, make_decoder)
        finally:
            episodes.close()
        progress.ended(len(part))
    return trajectories


def noise(seed: int, stream: int, slot: Slot) -> np.random.Generator:
    """The random numbers of one episode."""
    return np.random.default_rng([seed, stream, slot.group, slot.sample])


@dataclass
class _Row:
    """One episode while it is being played."""

    index: int
    owner: int
    group: int
    prompt: Prompt
    tokens: list[int]
    observation: str
    noise: np.random.Generator
    turns: list[Turn] = field(default_factory=list)
    failure: str | None = None

    def trajectory(self) -> Trajectory:
        reward = sum(turn.reward for turn in self.turns)
        return Trajectory(self.group, tuple(self.tokens), tuple(self.turns), reward, self.failure)


class _Batch:
    """Episodes that share a decoding batch."""

    def __init__(
        self,
        model: LoadedModel,
        renderer: Renderer,
        rows: list[_Row],
        settings: SamplingSettings,
        progress: Writing,
        *,
        single_turn: bool,
    ):
        self._model = model
        self._renderer = renderer
        self._rows = rows
        self._settings = settings
        self._progress = progress
        self._single_turn = single_turn
        self._context = context_length(model)
        self._stops = Stops(model, settings.stop)

    def play(
        self, episodes: Episodes, make_decoder: Callable[[Sequence[int]], Decoder]
    ) -> list[Trajectory]:
        """Alternate between the model's turns and the episodes' answers until all are done."""
        copies: Tensor | None
        decoder, logits, copies = self._read_prompts(make_decoder)
        live = self._rows
        while live:
            limit = self._settings.max_new_tokens
            written = write_turns(
                decoder,
                logits,
                np.stack([row.noise.random(limit) for row in live]),
                self._settings.temperature,
                self._stops.ends,
                copies,
                drop_finished=self._single_turn,
                on_tokens=self._progress.wrote,
            )
            texts = [self._stops.text(tokens) for tokens in written]
            results = episodes.step(
                {row.index: text for row, text in zip(live, texts, strict=True)}
            )
            replies = [
                self._answer(row, tokens, results[row.index])
                for row, tokens in zip(live, written, strict=True)
            ]
            going = [index for index, reply in enumerate(replies) if reply]
            if going and len(going) < len(live):
                decoder.keep(going)
            live = [live[index] for index in going]
            if live:
                logits = decoder.extend([replies[index] for index in going])
                copies = None
        return [row.trajectory() for row in self._rows]

    def _read_prompts(
        self, make_decoder: Callable[[Sequence[int]], Decoder]
    ) -> tuple[Decoder, Tensor, Tensor]:
        """A decoder that has read every row's prompt, and logits of the first tokens.

        Samples of one prompt stand side by side: it is read once, then repeated. Its logits are
        not: of each row, the last tensor names its row of the logits.
        """
        first = [
            index
            for index, row in enumerate(self._rows)
            if index == 0
            or (row.owner, row.group) != (self._rows[index - 1].owner, self._rows[index - 1].group)
        ]
        decoder = make_decoder([self._rows[index].owner for index in first])
        logits = decoder.extend([self._rows[index].tokens for index in first])
        repeats = np.diff([*first, len(self._rows)])
        copies = torch.from_numpy(np.repeat(np.arange(len(first)), repeats))
        if len(copies) > len(first):
            decoder.keep(copies.tolist())
        return decoder, logits, copies

    def _answer(self, row: _Row, written: list[int], result: StepResult) -> list[int]:
        """Record a turn and its result; returns what the row reads next, [] when it is over."""
        start = len(row.tokens)
        row.tokens += written
        full = len(written) == self._settings.max_new_tokens
        cut = full and not self._stops.ends(written)
        row.turns.append(Turn(start, len(row.tokens), row.observation, result.reward, cut))
        row.failure = result.failure
        if result.done:
            return []
        reply = list(self._renderer.reply_tokens(row.prompt, result.observation))
        if reply and reply[0] == written[-1] and written[-1] in self._stops.end_tokens:
            del reply[0]  # the model has closed its message itself
        if len(row.tokens) + len(reply) + self._settings.max_new_tokens > self._context:
            row.failure = f"the episode outgrew the model's context of {self._context} tokens"
            return []
        row.observation = hash_text(result.state or result.observation)
        row.tokens += reply
        return [written[-1], *reply]


class Stops:
    """What ends a turn: an end token of the model, or a stop string in what it wrote."""

    def __init__(self, model: LoadedModel, stop: Sequence[str]):
        configured = model.model.generation_config.eos_token_id
        several = configured if isinstance(configured, list) else [configured]
        closing = closing_token(model.tokenizer)
        self.end_tokens = {*several, model.tokenizer.eos_token_id, closing} - {None}
        self._decode = model.tokenizer.decode
        self._stop = tuple(stop)
        # A stop string of n bytes spans at most n tokens.
        self._window = max((len(text.encode()) for text in stop), default=0) + 1
        self._stops_after = lru_cache(maxsize=1 << 16)(self._holds_stop)

    def ends(self, written: list[int]) -> bool:
        """Whether the last token written ends the turn."""
        if written[-1] in self.end_tokens:
            return True
        if not self._stop:
            return False
        return self._stops_after(tuple(written[-self._window :]))

    def _holds_stop(self, tokens: tuple[int, ...]) -> bool:
        text = self._decode(list(tokens))
        return any(stop in text for stop in self._stop)

    def text(self, written: list[int]) -> str:
        """What was written, cut before the first stop string."""
        text = self._decode(written, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in self._stop if stop in text]
        return text[: min(cuts)] if cuts else text


LOGIT_BYTES = 12
"""Of a logit while a token is drawn: in the model's format, in float32, and its probability."""


def rows_that_fit(model: LoadedModel, tokens: int) -> int:
    """How many episodes of so many tokens can be decoded at a time, by their keys and values.

    These and the logits of one token may take half of what the weights leave of the memory; without
    a GPU an eighth of it at most, where hundreds at a time are as fast as thousands. Of all of it,
    not of what is free just now, so that a run is batched alike whenever it is repeated.
    """
    config = model.model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = model.model.get_input_embeddings().weight.element_size()
    weights = sum(each.numel() * each.element_size() for each in model.model.parameters())
    memory = device_memory(model.device)
    most = memory if model.device.type == "cuda" else memory / 8
    room = min((memory - weights) / 2, most)
    logits = LOGIT_BYTES * config.vocab_size
    kept = tokens * len(model.layers) * 2 * heads * width * size
    return max(1, int(room / (kept + logits)))


def device_memory(device: torch.device) -> int:
    """All memory of a GPU, or of the machine, in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    import psutil

    return int(psutil.virtual_memory().total)


def context_length(model: LoadedModel) -> int:
    """The most tokens the model can hold, by its config."""
    config = model.model.config.get_text_config(decoder=True)
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


def _refuse_long_prompts(
    model: LoadedModel,
    prompts: Sequence[Prompt],
    tokens: Sequence[tuple[int, ...]],
    max_new_tokens: int,
) -> None:
    limit = context_length(model)
    for prompt, ids in zip(prompts, tokens, strict=True):
        if len(ids) + max_new_tokens > limit:
            raise LayerpickError(
                f"{prompt.source} has a prompt of {len(ids)} tokens; with --max-new-tokens "
                f"{max_new_tokens} it exceeds the model's context of {limit}."
            )
