"""What is said of how long the writing takes, on a clock of the test's own."""

from rich.console import Console
from rich.progress import Progress

from layerpick.selector.progress import FULL_BARS, Expectation, OnStderr, in_time


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def expectation(clock, notes, shown, *, episodes=512, longest=1000):
    return Expectation(
        "sampling", episodes, longest, notes.append, lambda *both: shown.append(both), clock
    )


def test_long_writing_is_announced_from_the_first_tokens_and_the_first_batch():
    clock, notes, shown = Clock(), [], []
    progress = expectation(clock, notes, shown)
    for _ in range(200):  # the first of 8 batches: 200 tokens each, 0.1 s a step
        progress.wrote(64)
        clock.now += 0.1
    assert notes == [
        "sampling: at most 13 min (512 completions of up to 1,000 tokens, 64 at a time)."
    ]
    progress.ended(64)
    assert notes[1:] == [
        "sampling: about 2 min more; the first 64 completions have 200 tokens on average."
    ]
    assert shown[0] == (64, 512_000) and shown[-1] == (12_800, 102_400)
    for _ in range(7):
        clock.now += 20
        progress.ended(64)
    assert len(notes) == 2 and shown[-1] == (12_800, 12_800)


def test_short_writing_is_not_announced():
    clock, notes = Clock(), []
    progress = expectation(clock, notes, [], episodes=64, longest=30)
    for _ in range(30):
        progress.wrote(64)
        clock.now += 0.5
    progress.ended(64)
    assert notes == []


def test_of_many_full_bars_the_last_stay_in_sight():
    progress = Progress(disable=True)
    reporter = OnStderr(Console(quiet=True), progress)
    for number in range(30):
        done = reporter.stage(str(number), 1)
        if number:  # the first is not done yet
            done(1)
    seen = [task.description for task in progress.tasks if task.visible]
    assert seen == ["0", *(str(number) for number in range(29 - FULL_BARS, 30))]


def test_times_in_words():
    assert [in_time(s) for s in (5, 119, 300, 9000)] == ["5 s", "119 s", "5 min", "2.5 h"]
