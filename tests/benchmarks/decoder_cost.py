"""Tokens a second that our decoder writes, against transformers' `generate` on the same batch.

    .venv/bin/python tests/benchmarks/decoder_cost.py [MODEL] [--rows 8] [--prompt 64]
        [--new-tokens 400] [--repeats 3] [--threads 2] [--dtype auto] [--device auto]

MODEL is a .gguf file or a folder; the built-in math model unless given. Random prompts; no row ends
before `--new-tokens`. Both sample at temperature 1 from the whole vocabulary and take turns; the
best of the repeats counts, since other work can only slow them. Prints tokens a second of each,
by processor time on a CPU.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from layerpick.training.episodes.decoding import Decoder, write_turns
from layerpick.training.models.loading import LoadedModel, load_model

REFERENCE = Path(__file__).parents[2] / "training/reference/math"


def ours(model: LoadedModel, prompts: torch.Tensor, new_tokens: int) -> int:
    """Write with our decoder; returns the number of tokens."""
    decoder = Decoder(model.model, model.tokenizer.pad_token_id, len(prompts))
    logits = decoder.extend(prompts.tolist())
    uniforms = np.random.default_rng(0).random((len(prompts), new_tokens))
    written = write_turns(decoder, logits, uniforms, 1.0, lambda _: False, None, drop_finished=True)
    return sum(len(row) for row in written)


def theirs(model: LoadedModel, prompts: torch.Tensor, new_tokens: int) -> int:
    """Write with `generate`; returns the number of tokens."""
    asked = prompts.to(model.device)
    made = model.model.generate(
        asked,
        attention_mask=torch.ones_like(asked),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        pad_token_id=model.tokenizer.pad_token_id,
    )
    return int((made.shape[1] - prompts.shape[1]) * len(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=str(REFERENCE))
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = load_model(chosen.model, dtype=chosen.dtype, device=chosen.device)
    generator = torch.Generator().manual_seed(0)
    usable = min(len(model.tokenizer), model.model.config.vocab_size)
    prompts = torch.randint(2, usable, (chosen.rows, chosen.prompt), generator=generator)
    # On a CPU that others use too, the process's own time is the fairer one.
    clock = time.perf_counter if model.device.type == "cuda" else time.process_time
    rates: dict[str, float] = {}
    for name, write in (("ours", ours), ("generate", theirs)):
        write(model, prompts, 4)
        rates[name] = 0.0
    for _ in range(chosen.repeats):
        for name, write in (("ours", ours), ("generate", theirs)):
            start = clock()
            tokens = write(model, prompts, chosen.new_tokens)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            rates[name] = max(rates[name], tokens / (clock() - start))
    ratio = rates["ours"] / rates["generate"]
    if chosen.json:
        print(json.dumps({**rates, "ratio": ratio, "dtype": str(model.dtype)}))
        return
    print(
        f"{chosen.rows} rows, {chosen.prompt} + {chosen.new_tokens} tokens, {model.dtype}, "
        f"{model.device}: ours {rates['ours']:.0f} tokens a second, generate "
        f"{rates['generate']:.0f}, {ratio:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
