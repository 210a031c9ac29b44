"""Rewards for sweeps of small pretrained models: 1 where the first line is the answer, else 0."""


def exact(completions, answer, **_):
    """Exact, but for white space and case."""
    def plain(text):
        lines = str(text).strip().splitlines() or [""]
        return "".join(lines[0].lower().split()).strip(".'\"")
    return [float(plain(c) == plain(a)) for c, a in zip(completions, answer)]
