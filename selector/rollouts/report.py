"""A few rollouts on the screen."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from layerpick.selector.rollouts.run import ShownRollout, ShownRollouts

SHOWN = 1200
"""Characters of a completion; the middle of a longer one is left out."""


def print_shown(shown: ShownRollouts, console: Console) -> None:
    """Each prompt with its completions, then what they have in common."""
    if not console.is_terminal:
        console.width = max(console.width, 100)
    for number, (prompt, own) in enumerate(groupby(shown.rollouts, lambda each: each.prompt), 1):
        console.print(Rule(Text(f"prompt {number}", "bold"), align="left"))
        _print(console, prompt, "dim")
        for sample, each in enumerate(own, 1):
            console.print(Text(f"— completion {sample}: {_verdict(each)}", "bold"))
            _print(console, _shortened(each.completion), "")
    console.print(Rule())
    for line in sentences(shown):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def sentences(shown: ShownRollouts) -> list[str]:
    """How the model was asked, and what came of it."""
    lines = [f"Prompts: {shown.task.prompt_form}."]
    if shown.task.note:
        lines.append(shown.task.note)
    count, all_of_them = len(shown.rollouts), shown.completions
    which = "" if count == all_of_them else f" of {all_of_them:,}; of all {all_of_them:,}"
    lines.append(
        f"{count} completions shown{which}: mean reward {shown.mean_reward:.2f}; "
        f"{shown.cut:.0%} cut off at {shown.max_new_tokens:,} tokens, {shown.readable:.0%} with an "
        f"answer that can be read; temperature {shown.temperature:g}."
    )
    return lines


def _verdict(each: ShownRollout) -> str:
    answer = "no answer that can be read" if each.answer is None else _answer(each)
    cut = ", cut off" if each.cut else ""
    return f"reward {each.reward:g}, {answer}, {each.tokens:,} tokens{cut}"


def _answer(each: ShownRollout) -> str:
    own = str(each.answer)
    if "\n" in own or len(own) > 60:  # a program or a conversation, which stands below anyway
        return "an answer that can be read"
    return f"answer {own}" + (f" (expected {each.expected})" if each.expected else "")


def _shortened(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    left_out = len(text) - SHOWN
    return f"{text[: SHOWN // 2]}\n[… {left_out:,} characters …]\n{text[-SHOWN // 2 :]}"


def _print(console: Console, text: str, style: str) -> None:
    console.print(Text(text.strip("\n"), style), soft_wrap=True)
