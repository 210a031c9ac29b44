"""Train a language model from scratch on a stream of texts and save it as a Hugging Face folder.

Meant for models of about a million parameters on a CPU: one process, float32, nothing resumed.
The same seed gives the same weights on the same machine with the same number of threads; other
machines may round differently.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import CONFIG_NAME

from layerpick.training.errors import LayerpickError
from layerpick.training.files import writing
from layerpick.training.pretraining.architecture import Architecture
from layerpick.training.pretraining.tokenizer import byte_tokenizer

Document = tuple[str, ...]
"""Texts read and written in turn: (prompt, completion), or (prompt, action, answer, action…)."""
Corpus = Callable[[random.Random], Iterator[Document]]
"""Endless documents, the same for the same generator state."""

IGNORED = -100


@dataclass(frozen=True)
class PretrainSettings:
    """How to train."""

    steps: int
    batch_size: int = 256
    learning_rate: float = 2e-3
    """Peak of AdamW's rate: linear warm-up, then a cosine down to zero."""
    warmup_steps: int = 50
    weight_decay: float = 0.01
    learn_prompts: bool = False
    """Whether the loss counts the texts read as well as the texts written."""
    seed: int = 0


@dataclass(frozen=True)
class Pretrained:
    """What training gave."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    losses: tuple[float, ...]
    """Mean cross-entropy per learned token (nats) of each step's batch."""

    def save(self, folder: Path, others: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the model and its tokenizer where `from_pretrained` finds them.

        `others` are further files, name → text. Files of the same names are replaced, one by one,
        config.json last: where it is, all are. Whatever else is in the folder stays. Raises
        LayerpickError when the place cannot be written.
        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                self.model.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)
                for name, text in others.items():
                    (Path(temporary) / name).write_text(text, encoding="utf-8")
                files = sorted(Path(temporary).iterdir(), key=lambda file: file.name == CONFIG_NAME)
                for file in files:
                    file.replace(folder / file.name)


def pretrain(
    architecture: Architecture,
    corpus: Corpus,
    settings: PretrainSettings,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Pretrained:
    """Train a new model; `report` gets the number and the loss of each step.

    Raises LayerpickError when a document is longer than the architecture can read.
    """
    tokenizer = byte_tokenizer(architecture.max_length)
    documents = corpus(random.Random(settings.seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = architecture.build(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    losses = []
    model.train()
    for step in range(settings.steps):
        batch = tuple(islice(documents, settings.batch_size))
        tokens, labels = encode(batch, tokenizer, settings.learn_prompts)
        # Padding comes last, where a causal model cannot see it: no attention mask is needed.
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        report(step, losses[-1])
    return Pretrained(model.eval(), tokenizer, tuple(losses))


def encode(
    documents: tuple[Document, ...], tokenizer: PreTrainedTokenizerFast, learn_prompts: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, both int64 of shape (documents, longest), padded on the right.

    The end-of-text token closes each document and is learned. A label is -100 where nothing is
    learned: padding and, unless `learn_prompts`, the texts at even positions of the document.
    """
    rows = []
    for document in documents:
        tokens: list[int] = []
        labels: list[int] = []
        for position, text in enumerate(document):
            piece = tokenizer.encode(text, add_special_tokens=False)
            tokens += piece
            labels += piece if learn_prompts or position % 2 else [IGNORED] * len(piece)
        end = tokenizer.eos_token_id
        rows.append((torch.tensor([*tokens, end]), torch.tensor([*labels, end])))
    longest = max(rows, key=lambda row: len(row[0]))
    if len(longest[0]) > tokenizer.model_max_length:
        text = tokenizer.decode(longest[0][:40])
        raise LayerpickError(
            f"The document that starts with {text!r} has {len(longest[0])} tokens; make it shorter "
            f"or raise the architecture's max_length of {tokenizer.model_max_length}."
        )
    return (
        pad_sequence([row[0] for row in rows], True, tokenizer.pad_token_id),
        pad_sequence([row[1] for row in rows], True, IGNORED),
    )


def _rate(step: int, settings: PretrainSettings) -> float:
    """Share of the peak learning rate at a step."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    rest = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * rest))
