"""The one tokenizer of all built-in models: every byte is a token.

Nothing is merged, split or normalised, so any string decodes to itself: spaces and line ends too.
"""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<|pad|>", "<|endoftext|>"


def byte_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of 258 tokens: padding (0), end of text (1), and the 256 bytes.

    `max_length` (tokens) is the longest text that its model can read.
    """
    symbols = [PAD, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )
