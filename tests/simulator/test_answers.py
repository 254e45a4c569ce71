"""What the simulated model says, in every prompt format."""

import json

import pytest

TOOLS = [
    {"type": "function", "function": {
        "name": "HassTurnOn", "description": "Turns on/opens a device or entity",
        "parameters": {"type": "object", "properties": {
            "name": {"type": "string"}, "area": {"type": "string"},
            "domain": {"type": "array", "items": {"type": "string", "enum": ["light", "fan"]}}}}}},
    {"type": "function", "function": {
        "name": "HassTurnOff", "description": "Turns off/closes a device or entity",
        "parameters": {"type": "object", "properties": {
            "name": {"type": "string"}, "area": {"type": "string"}}}}},
    {"type": "function", "function": {
        "name": "set_switch", "description": "Switch a relay on or off",
        "parameters": {"type": "object", "properties": {
            "relay": {"type": "string", "enum": ["garden_pump", "pool_filter"]},
            "on": {"type": "boolean"}}, "required": ["relay", "on"]}}},
    {"type": "function", "function": {
        "name": "HassLightSet", "description": "Sets the brightness of a light",
        "parameters": {"type": "object", "properties": {
            "name": {"type": "string"}, "brightness": {"type": "integer"}}, "required": ["brightness"]}}},
]  # fmt: skip
FORMATS = {
    "chatml": "<|im_start|>system\n{s}<|im_end|>\n<|im_start|>user\nold<|im_end|>\n"
    "<|im_start|>assistant\nok<|im_end|>\n"
    "<|im_start|>user\n{u}<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{s}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{u}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<bos><start_of_turn>user\n{s}<end_of_turn>\n"
    "<start_of_turn>user\n{u}<end_of_turn>\n<start_of_turn>model\n",
    "phi": "<|system|>\n{s}<|end|>\n<|user|>\n{u}<|end|>\n<|assistant|>\n",
    "zephyr": "<|system|>\n{s}</s>\n<|user|>\n{u}</s>\n<|assistant|>\n",
    "inst": "{s}[INST] {u} [/INST]",
    "plain": "{s}\nUser: {u}\nAssistant:",
}
RAW = ["template", "", "", ""]


def said(play, *prompts: str, **options) -> list[str]:
    words = [word for prompt in prompts for word in ("run", prompt)]
    return play("context", 4096, *RAW, *words, **options).texts()


def call_of(text: str) -> dict:
    head, body, tail = text.partition("<tool_call>\n")[2].partition("\n</tool_call>")
    assert body == "\n</tool_call>"
    assert tail == ""
    return json.loads(head)


@pytest.mark.parametrize("name", FORMATS)
def test_the_last_message_of_the_user_is_found_in_every_format(play, name: str) -> None:
    assert said(play, FORMATS[name].format(s="Be brief.", u="the sky is green")) == [
        "You said: the sky is green"
    ]


def test_text_without_any_template_is_the_message(play) -> None:
    assert said(play, "the sky is green") == ["You said: the sky is green"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what is 2+3", "2 + 3 = 5."),
        ("What is 12 times 12?", "12 * 12 = 144."),
        ("7 / 2", "7 / 2 = 3.5."),
        ("1/0", "Nothing can be divided by zero."),
        ("count to 5", "1, 2, 3, 4, 5."),
        ("hello", "Hello! How can I help you?"),
        ("Please repeat after me: rain, rain", "rain, rain"),
        ("who are you?", "I am a simulated language model: no NPU was used for this answer."),
    ],
)
def test_small_questions_get_sensible_answers(play, question: str, answer: str) -> None:
    assert play("run", question).texts() == [answer]


@pytest.mark.parametrize("tokens", [1, 10, 200, 1000])
def test_a_story_of_so_many_tokens_has_exactly_so_many(play, tokens: int) -> None:
    run = play("run", f"story {tokens} tokens").runs()[0]
    normal = [event for event in run if event["event"] == "normal"]
    assert sum(1 for event in normal if event["text"]) == tokens
    assert normal[-1]["text"] is None
    assert run[-2]["generate_tokens"] == tokens


@pytest.mark.parametrize("words", [1, 20, 50, 333])
def test_a_story_of_so_many_words_has_exactly_so_many(play, words: int) -> None:
    story = play("run", f"Tell me a story of {words} words").texts()[0]
    assert len(story.split()) == words
    assert story.endswith(".")


def test_english_takes_three_to_four_letters_a_token(play) -> None:
    text = (
        "The quick brown fox jumps over the lazy dog, and nobody in the whole neighbourhood complains about "
        "the noise, because everybody is listening to the evening broadcast of the national orchestra."
    )
    perf = play(*RAW, "run", text).perfs()[0]
    assert 3.0 <= len(text) / perf["prefill_tokens"] <= 4.2


@pytest.mark.parametrize(
    ("request_text", "name", "arguments"),
    [
        ("Please turn on the kitchen lamp.", "HassTurnOn", {"name": "Kitchen Lamp"}),
        ("turn the kitchen lamp off", "HassTurnOff", {"name": "Kitchen Lamp"}),
        (
            "Can you switch on the lights in the bedroom?",
            "HassTurnOn",
            {"area": "Bedroom", "domain": ["light"]},
        ),
        ("switch on the garden pump", "set_switch", {"relay": "garden_pump", "on": True}),
        ("set the kitchen lamp to 40 percent", "HassLightSet", {"name": "Kitchen Lamp", "brightness": 40}),
    ],
)
@pytest.mark.parametrize("name_of_format", ["chatml", "llama3"])
def test_a_tool_that_fits_is_called(play, request_text, name, arguments, name_of_format) -> None:
    lines = "\n".join(json.dumps(tool) for tool in TOOLS)
    system = f"Areas: Bedroom\n- names: Kitchen Lamp\n<tools>\n{lines}\n</tools>"
    prompt = FORMATS[name_of_format].format(s=system, u=request_text)
    call = call_of(said(play, prompt)[0])
    assert call == {"name": name, "arguments": arguments}


def test_no_tool_is_called_for_other_questions_or_unknown_things(play) -> None:
    system = f"<tools>\n{json.dumps(TOOLS[2])}\n</tools>"
    for question in ("how are you", "switch on the rocket"):
        prompt = FORMATS["chatml"].format(s=system, u=question)
        assert said(play, prompt) == [f"You said: {question}"]


def test_a_tool_result_is_answered_in_a_sentence(play) -> None:
    asked = FORMATS["chatml"].format(s="", u="turn off the hall lamp")
    turn = "<tool_call>\n{{}}\n</tool_call><|im_end|>\n"
    turn += "<|im_start|>user\n<tool_response>\n{0}\n</tool_response><|im_end|>\n"
    good, bad = (
        asked + turn.format(result) + "<|im_start|>assistant\n"
        for result in ('{"ok": 1}', '{"error": "busy"}')
    )
    assert said(play, good, bad) == [
        "Done, the hall lamp is off.",
        'Sorry, that did not work: {"error": "busy"}',
    ]


def test_the_runtimes_own_function_tools_work_over_two_runs(play) -> None:
    words = [
        "tools",
        json.dumps(TOOLS),
        "run",
        "turn on the desk fan",
        "role",
        "tool",
        "run",
        '[{"ok": true}]',
    ]
    first, second = play("context", 2048, *words, version="1.2.1").texts()
    assert call_of(first) == {"name": "HassTurnOn", "arguments": {"name": "desk fan", "domain": ["fan"]}}
    assert second == "Done, the desk fan is on."


def test_a_tool_turn_that_is_no_json_is_refused_and_so_are_such_tools(play) -> None:
    played = play("tools", "no json", "role", "tool", "run", "it worked")
    assert played.of("tools")[0]["status"] == -1
    assert played.of("run") == [{"event": "run", "status": -1}]
    assert "E rkllm: role tool asks for a JSON array of results" in played.log


def test_thinking_comes_first_when_it_is_asked_for(play) -> None:
    words = ["think", 1, "run", "hello", "think", 0, "run", "hello", "think", 1, "run", "hello /no_think"]
    thought, silent, told_not_to = play(*words, lines="thinking: yes").texts()
    assert thought.startswith("<think>\n")
    assert thought.endswith("\n</think>\n\nHello! How can I help you?")
    assert silent == "Hello! How can I help you?"
    assert "<think>" not in told_not_to


def test_an_open_think_block_in_the_prompt_is_continued(play) -> None:
    prompt = FORMATS["chatml"].format(s="", u="hello") + "<think>\n"
    answer = said(play, prompt)[0]
    assert answer.startswith("The user wrote")
    assert "\n</think>\n\nHello!" in answer


def test_a_release_may_stop_after_its_thoughts(play) -> None:
    text = play("think", 1, "run", "hello", lines="thinking: yes\nstop_at_think_end: yes").texts()[0]
    assert text.endswith("</think>")


def test_a_half_said_answer_in_the_prompt_is_continued(play) -> None:
    prompt = FORMATS["chatml"].format(s="", u="count to 9")
    whole = said(play, prompt)[0]
    for cut in (1, 9, len(whole) - 1):
        assert said(play, prompt + whole[:cut].rstrip()) == [whole[len(whole[:cut].rstrip()) :]]


def test_rules_answer_before_anything_else(play) -> None:
    lines = 'when "weather": reply "Rain.\\nMore \\"rain\\"."\nalways: reply "Whatever."'
    assert play("run", "The WEATHER today", "run", "2+2", lines=lines).texts() == [
        'Rain.\nMore "rain".',
        "Whatever.",
    ]


def test_the_parameters_that_arrived_can_be_asked_for(play) -> None:
    text = play("context", 700, "max", 900, "keep", 5, "role", "user", "run", "show your parameters").texts()[
        0
    ]
    given = dict(pair.split("=") for pair in text.split())
    assert given["max_context_len"] == "700"
    assert given["max_new_tokens"] == "900"
    assert given["n_keep"] == "5"
    assert given["top_k"] == "40"
    assert given["cpus_mask"] == "0xf0"
