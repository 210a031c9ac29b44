import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.training.episodes.rendering import Renderer
from layerpick.training.errors import LayerpickError
from layerpick.training.pretraining.tokenizer import byte_tokenizer
from layerpick.training.tasks.base import Prompt

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(chat: bool = False):
    made = byte_tokenizer(1000)
    if chat:
        made.chat_template = CHAT
    return made


def text(renderer: Renderer, prompt: Prompt) -> str:
    return renderer.tokenizer.decode(renderer.tokens(prompt))


@given(st.text(min_size=1).filter(str.strip))
def test_raw_text_is_used_as_it_is(content):
    content = content.encode("utf-8", "replace").decode()
    assert text(Renderer(tokenizer(chat=True)), Prompt(content, {}, "row")) == content


def test_templates_fill_in_columns_and_leave_other_braces():
    prompt = Prompt("2+2", {"hint": "add"}, "row")
    renderer = Renderer(tokenizer(), template="\\boxed{} {unknown} Q: {prompt} ({hint})\nA:")
    assert text(renderer, prompt) == "\\boxed{} {unknown} Q: 2+2 (add)\nA:"
    with pytest.raises(LayerpickError, match=r"no \{prompt\}.*hint, prompt"):
        Renderer(tokenizer(), template="nothing").tokens(prompt)


def test_chat_rows_use_the_models_template():
    prompt = Prompt(({"role": "user", "content": "2+2?"},), {}, "rows.jsonl:3")
    assert text(Renderer(tokenizer(chat=True)), prompt) == "<user>2+2?</user>\n<assistant>"
    with pytest.raises(LayerpickError, match=r"rows\.jsonl:3 is a chat"):
        Renderer(tokenizer()).tokens(prompt)


def test_conversational_tasks_speak_the_models_language():
    prompt = Prompt("go", {}, "row")
    talking = Renderer(tokenizer(chat=True), conversational=True)
    assert text(talking, prompt) == "<user>go</user>\n<assistant>"
    assert text(Renderer(tokenizer(), conversational=True), prompt) == "go"
    own = Renderer(tokenizer(chat=True), template="{prompt}>", conversational=True)
    assert text(own, prompt) == "go>"


def test_replies_continue_the_text_or_the_chat():
    prompt = Prompt("go", {}, "row")
    raw, talking = Renderer(tokenizer()), Renderer(tokenizer(chat=True), conversational=True)
    assert raw.tokenizer.decode(raw.reply_tokens(prompt, "\nnow?")) == "\nnow?"
    reply = talking.tokenizer.decode(talking.reply_tokens(prompt, "now?"))
    whole = text(talking, prompt) + "words" + reply
    assert whole == (
        "<user>go</user>\n<assistant>words</assistant>\n<user>now?</user>\n<assistant>"
    )


def test_empty_prompts_are_named():
    with pytest.raises(LayerpickError, match="row 7 has an empty prompt"):
        Renderer(tokenizer()).tokens(Prompt("  ", {}, "row 7"))
