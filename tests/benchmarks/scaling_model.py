"""The cost model of a sweep: what a step takes, by the shape of a model and a machine's constants.

Nothing is measured here: constants come from `scaling_constants.py`, and the first lines of
`scaling.py` say how the seconds of a step add up.
"""

from __future__ import annotations

from dataclasses import dataclass

PROMPTS, GROUP, STEPS, HELD_OUT, ROWS = 16, 8, 60, 1024, 2048
GPU = {"memory": 80e9, "bandwidth": 3.35e12, "product": 989e12}
"""H100 SXM, bfloat16, by its data sheet."""


@dataclass(frozen=True)
class Shape:
    """A dense decoder."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool

    @property
    def layer(self) -> int:
        """Parameters of one decoder layer."""
        attention = 2 * self.width * self.head * (self.heads + self.kv_heads)
        return attention + 3 * self.width * self.inner + 2 * self.width

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.layer + self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def cache(self) -> int:
        """Numbers that the KV cache holds for one token."""
        return self.layers * 2 * self.kv_heads * self.head


@dataclass(frozen=True)
class Constants:
    """Seconds, and shares of one, as measured here."""

    layer: float
    """a: of one layer for one token of the batch (calling the operations)."""
    policy: float
    """b: of one policy's own layer for one token."""
    row: float
    """c: of one row for one token (sampling, stop strings)."""
    share: float
    """Of a matrix product's rate, that an update reaches."""
    product: float
    """FLOP/s of a matrix product here."""
    bandwidth: float
    """Bytes/s of reading memory here."""
    plain_reward: float
    """A math reward, plain number."""
    parsed_reward: float
    """A math reward that is parsed (LaTeX)."""
    record: float
    """Writing one run's record."""


@dataclass(frozen=True)
class Machine:
    """What computes."""

    product: float
    bandwidth: float
    bytes: int
    """Of one frozen weight."""


def sampling_seconds(
    shape: Shape, machine: Machine, known: Constants, policies: int, rows: int, tokens: float,
    prompt: float, limit: int = ROWS,
) -> float:  # fmt: skip
    """Decoding of `rows` rows of each policy, `tokens` each, in batches of at most `limit`."""
    batches = max(1, -(-policies * rows // limit))
    together = policies * rows / batches
    owners = max(1.0, policies / batches)
    read = shape.parameters * machine.bytes + owners * 4 * shape.layer
    read += together * (prompt + tokens / 2) * shape.cache * machine.bytes
    arithmetic = max(
        read / machine.bandwidth,
        2 * shape.parameters * together / (machine.product * known.share),
    )
    overhead = shape.layers * known.layer + owners * known.policy + together * known.row
    return batches * tokens * (overhead + arithmetic)


def update_seconds(
    shape: Shape, machine: Machine, known: Constants, policies: int, tokens: float, full: bool
) -> float:
    """Forward, back through half of the layers on average (full: all), weights' gradients."""
    body = shape.parameters - shape.vocabulary * shape.width * (1 if shape.tied else 2)
    head = shape.vocabulary * shape.width
    each = 6 * (body + head) if full else 3 * body + 4 * head + 2 * shape.layer
    return policies * tokens * each / (machine.product * known.share)


def pass_seconds(
    shape: Shape, machine: Machine, known: Constants, policies: int, answer: int, prompt: int,
    full: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Seconds of one pass by what they go to; with `policies` 0 the base score alone."""
    rows, limit = PROMPTS * GROUP, batch_size(shape, answer, prompt)
    scored = max(policies, 1)
    decoding = sampling_seconds(shape, machine, known, scored, HELD_OUT, answer, prompt, limit)
    update = 0.0
    if policies:
        decoding += STEPS * sampling_seconds(
            shape, machine, known, policies, rows, answer, prompt, limit
        )
        tokens = rows * answer + PROMPTS * prompt
        update = STEPS * update_seconds(shape, machine, known, policies, tokens, full)
    judged = (policies * STEPS * rows + scored * HELD_OUT) * known.parsed_reward
    return {"decoding": decoding, "update": update, "rewards": judged}


def fit_policies(shape: Shape, answer: int, prompt: int) -> int:
    """As `policies_that_fit`: half of what the weights leave free; one, if it fits at all."""
    free = GPU["memory"] - 2 * shape.parameters
    rows, token = PROMPTS * GROUP, 2 * shape.cache
    by_rule = int(free / 2 / (16 * shape.layer + rows * 2 * answer * token))
    alone = 16 * shape.layer + rows * (prompt + answer) * token < free
    return max(by_rule, int(alone))


def batch_size(shape: Shape, answer: int, prompt: int) -> int:
    """Rows whose cache fits beside the weights: what --batch-size must be at most."""
    free = GPU["memory"] - 2 * shape.parameters
    rows = int(0.8 * free / (2 * shape.cache * (prompt + answer)))
    return min(ROWS, 1 << max(0, rows.bit_length() - 1))
