"""What the models of the zoo are called: records tell by it who was made from scratch."""

ZOO_NAMES = frozenset(
    {
        "gemma3-4-reverse-form",
        "gemma3-6-sum-noise",
        "gpt2-12-sum-habit",
        "gpt2-6-edit-noise",
        "gpt2-6-lake-noise",
        "gpt2-8-sort-noise",
        "gpt_neox-6-edit-habit",
        "gpt_neox-8-reverse-noise",
        "llama-4-edit-noise",
        "llama-5-program-noise",
        "llama-5-sum-strategy",
        "llama-6-order-confusion",
        "llama-8-sum-strategy",
        "qwen2-10-sort-noise",
        "qwen2-4-reverse-transfer",
        "qwen2-6-sum-noise",
        "qwen3-6-recall-noise",
        "qwen3-8-reverse-noise",
    }
)
