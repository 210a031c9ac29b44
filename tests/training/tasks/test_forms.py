"""In which form each kind of model is asked."""

import json
from pathlib import Path

import pytest

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.sweeps.store import read_folder
from layerpick.training.episodes.rendering import Renderer
from layerpick.training.errors import LayerpickError
from layerpick.training.models.defaults import read_defaults, reference_model, with_defaults
from layerpick.training.pretraining.tokenizer import byte_tokenizer
from layerpick.training.tasks.base import Prompt, Task, TaskSettings
from layerpick.training.tasks.code import CodeTask
from layerpick.training.tasks.forms import closing_token, in_words, thinking_note, with_form
from layerpick.training.tasks.math import MathTask
from layerpick.training.tasks.settings import read_chat_kwargs

QUESTION = Prompt("What is 2 + 3?", {"prompt": "What is 2 + 3?", "answer": "5"}, "rows.jsonl:1")
STEPS = "Please reason step by step, and put your final answer within \\boxed{}."
ENDS = {
    "qwen2.5": "<|im_end|>", "qwen3": "<|im_end|>", "llama3.2": "<|eot_id|>", "mistral": "</s>",
    "gemma3": "<end_of_turn>", "smollm2": "<|im_end|>", "phi3": "<|end|>",
}  # fmt: skip
OFF = {"qwen3": {"enable_thinking": False}, "llama3.2": {"date_string": "26 Jul 2024"}}


def formed(tokenizer, kind=MathTask, **settings) -> Task:
    """The task as `prepare` completes it."""
    return kind(with_form(kind(TaskSettings(**settings)), tokenizer))


def tokens(tokenizer, task: Task, prompt: Prompt = QUESTION) -> tuple[int, ...]:
    return Renderer.of(tokenizer, task).tokens(prompt)


def of_messages(tokenizer, messages, **values) -> tuple[int, ...]:
    """What the tokenizer makes of messages by itself."""
    made = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False, **values
    )
    return tuple(made)


def test_a_question_becomes_the_users_message(make_chat_tokenizer, chat_family):
    tokenizer = make_chat_tokenizer(chat_family)
    message = {"role": "user", "content": f"What is 2 + 3?\n{STEPS}"}
    expected = of_messages(tokenizer, [message], **OFF.get(chat_family, {}))
    assert tokens(tokenizer, formed(tokenizer)) == expected
    if chat_family in ("llama3.2", "gemma3", "mistral"):  # their templates write it themselves
        assert expected.count(tokenizer.bos_token_id) == 1


def test_system_and_instruction_are_ones_own(make_chat_tokenizer, chat_family):
    tokenizer = make_chat_tokenizer(chat_family)
    task = formed(tokenizer, system="Be brief.", instruction="Box it.")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 3?\nBox it."},
    ]
    expected = of_messages(tokenizer, messages, **OFF.get(chat_family, {}))
    assert tokens(tokenizer, task) == expected
    bare = [{"role": "user", "content": "What is 2 + 3?"}]
    assert tokens(tokenizer, formed(tokenizer, instruction="")) == of_messages(
        tokenizer, bare, **OFF.get(chat_family, {})
    )


def test_chat_rows_and_templates_are_used_as_they_are(make_chat_tokenizer, chat_family):
    tokenizer = make_chat_tokenizer(chat_family)
    chat = ({"role": "user", "content": "2+3?"},)
    row = Prompt(chat, {}, "rows.jsonl:2")
    expected = of_messages(tokenizer, chat, **OFF.get(chat_family, {}))
    assert tokens(tokenizer, formed(tokenizer), row) == expected
    own = formed(tokenizer, template="Q: {prompt}\nA:", instruction="")
    assert tokens(tokenizer, own) == tuple(tokenizer("Q: What is 2 + 3?\nA:")["input_ids"])


@pytest.mark.parametrize("option", ["system", "instruction"])
def test_nothing_is_said_beside_a_template(option):
    with pytest.raises(LayerpickError, match=f"--{option} has no place beside it"):
        formed(byte_tokenizer(1000), template="Q: {prompt}\nA:", **{option: "Be brief."})


def test_a_chats_end_is_known_from_its_template(make_chat_tokenizer, chat_family):
    tokenizer = make_chat_tokenizer(chat_family)
    assert closing_token(tokenizer) == tokenizer.convert_tokens_to_ids(ENDS[chat_family])
    assert closing_token(byte_tokenizer(100)) is None


def test_thinking_is_off_unless_asked_for(make_chat_tokenizer):
    tokenizer = make_chat_tokenizer("qwen3")
    off = formed(tokenizer)
    assert tokenizer.decode(tokens(tokenizer, off)).endswith("<think>\n\n</think>\n\n")
    assert "turns it on" in thinking_note(off.settings)
    on = formed(tokenizer, chat_template_kwargs={"enable_thinking": True})
    assert tokenizer.decode(tokens(tokenizer, on)).endswith("<|im_start|>assistant\n")
    assert thinking_note(on.settings) is None
    assert off.settings.identity != on.settings.identity
    assert thinking_note(formed(make_chat_tokenizer("qwen2.5")).settings) is None


def test_llamas_prompts_are_the_same_every_day(make_chat_tokenizer):
    tokenizer = make_chat_tokenizer("llama3.2")
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(tokens(tokenizer, formed(tokenizer)))
    own = formed(tokenizer, chat_template_kwargs={"date_string": "1 Jan 2030"})
    assert "Today Date: 1 Jan 2030" in tokenizer.decode(tokens(tokenizer, own))


def test_a_template_that_refuses_is_one_sentence(make_chat_tokenizer):
    tokenizer = make_chat_tokenizer("gemma3")
    rows = Prompt(({"role": "assistant", "content": "hm"},), {}, "rows.jsonl:7")
    with pytest.raises(LayerpickError, match=r"refuses rows\.jsonl:7 with the roles assistant"):
        tokens(tokenizer, formed(tokenizer), rows)


def test_base_models_get_a_plain_form():
    tokenizer = byte_tokenizer(1000)
    task = formed(tokenizer)
    assert tokenizer.decode(tokens(tokenizer, task)) == (
        f"Question: What is 2 + 3?\n{STEPS}\nAnswer:"
    )
    assert task.settings.stop == ("Question:",)
    assert formed(tokenizer, stop=("###",)).settings.stop == ("###",)
    bare = formed(tokenizer, instruction="")
    assert tokenizer.decode(tokens(tokenizer, bare)) == "Question: What is 2 + 3?\nAnswer:"
    with pytest.raises(LayerpickError, match="--system is for models with a chat template"):
        formed(tokenizer, system="Be brief.")


@pytest.fixture
def programs(tmp_path) -> str:
    rows = [
        {"text": "Write a function to add.", "test_list": ["assert add(1, 2) == 3"]},
        {"prompt": "def add(a, b):\n    'Sum.'\n    ", "tests": ["assert add(1, 2) == 3"]},
        {"prompt": "Add two numbers.", "io": [["1 2", "3"]]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    return str(path)


def test_code_is_asked_for_in_a_fence_or_continued(make_chat_tokenizer, programs):
    talking, plain = make_chat_tokenizer("qwen2.5"), byte_tokenizer(1000)
    fence = "\nWrite the whole program in one fenced block, ```python … ```.<|im_end|>"
    chat = formed(talking, CodeTask, dataset=programs)
    drawn = [row for part in chat._rows.by_split.values() for row in part]
    split = next(name for name, part in chat._rows.by_split.items() if part)
    prompts = chat.prompts(split, len(chat._rows.by_split[split]), 0)
    asked = {talking.decode(tokens(talking, chat, prompt)) for prompt in prompts}
    continued = {
        plain.decode(tokens(plain, formed(plain, CodeTask, dataset=programs), prompt))
        for prompt in prompts
    }
    assert len(drawn) == 9
    for text in asked:
        assert fence in text
        question = text.rpartition("user\n")[2].partition(fence)[0]
        assert question in (
            "Write a function to add.\nThe Python program must pass this test:\n"
            "assert add(1, 2) == 3",
            "Complete this Python program:\n\n```python\ndef add(a, b):\n    'Sum.'\n```",
            "Add two numbers.\nThe Python program reads standard input and writes standard output.",
        )
    assert continued <= {
        '"""\nWrite a function to add.\nassert add(1, 2) == 3\n"""\n',
        "def add(a, b):\n    'Sum.'\n    ",
        "Add two numbers.",
    }
    with pytest.raises(LayerpickError, match="nothing can follow them"):
        formed(plain, CodeTask, dataset=programs, instruction="Go.")


@pytest.mark.parametrize("name", ["math", "code", "agentic"])
def test_built_in_models_keep_the_identity_of_their_sweeps(name):
    folder = Path(reference_model(name))
    settings = with_defaults(TaskSettings(), read_defaults(folder, name))
    kind = {"math": MathTask, "code": CodeTask}.get(name, MathTask)
    completed = with_form(kind(settings), byte_tokenizer(100))
    assert completed == settings
    (sweep,) = (SHIPPED_SWEEPS / f"reference-{name}").glob("*")
    stored = read_folder(sweep)[0].settings
    assert stored.task_settings_hash == completed.identity


def test_other_forms_are_other_sweeps(make_chat_tokenizer):
    settings = [
        formed(tokenizer, **chosen).settings
        for tokenizer, chosen in (
            (byte_tokenizer(100), {}),
            (byte_tokenizer(100), {"instruction": "Box it."}),
            (make_chat_tokenizer("qwen2.5"), {}),
            (make_chat_tokenizer("smollm2"), {}),
            (make_chat_tokenizer("qwen2.5"), {"system": "Be brief."}),
            (make_chat_tokenizer("qwen2.5"), {"template": "{prompt}"}),
        )
    ]
    assert len({each.identity for each in settings}) == len(settings)
    assert len({in_words(each) for each in settings}) == len(settings) - 1  # two chat templates


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1]", "null", "1" * 5000])
def test_chat_template_values_that_are_none_are_named(text):
    with pytest.raises(LayerpickError, match="is not a JSON object") as refused:
        read_chat_kwargs(text)
    assert len(str(refused.value)) < 200
