"""Inputs arrive as a C program reads them, or are refused before it does."""

import array
from collections.abc import Callable

import pytest

from rkllmrt import (
    AudioEmbeds,
    EmbedInput,
    ImageEmbeds,
    InvalidInput,
    MultimodalInput,
    PromptInput,
    RunParams,
    TokenInput,
    Unsupported,
    VideoEmbeds,
)

FLOATS = array.array("f", [0.5, 1.5, 2.5, 3.5])


def lines(one, model, item) -> list[str]:
    one.forget()
    model.generate(item)
    return one.log


def test_a_prompt_arrives_with_its_role(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    log = lines(one, open_model(one), PromptInput("grüß Gott"))
    assert {"input_type=0", "prompt_input=grüß Gott"} <= set(log)
    assert ("role=user" in log) == (group in "DEF")


def test_role_and_thinking_arrive(recorder: Callable, open_model: Callable) -> None:
    for group in "DEF":
        one = recorder(group)
        log = lines(one, open_model(one), PromptInput('[{"ok": true}]', role="tool", enable_thinking=True))
        assert {"role=tool", "enable_thinking=1"} <= set(log)


def test_token_ids_arrive(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    log = lines(one, open_model(one), TokenInput([3, 1, 2**31 - 1]))
    assert [line for line in log if line.startswith("id=")] == ["id=3", "id=1", "id=2147483647"]
    assert "input_type=1" in log
    assert ("role=user" in log) == (group in "DEF"), "NULL is nowhere allowed"


def test_embeddings_arrive(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    assert {"input_type=2", "embed=2:1.5"} <= set(lines(one, open_model(one), EmbedInput(FLOATS, 2)))


def test_an_image_arrives(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    images = ImageEmbeds(embed=FLOATS, n_tokens=4, width=392, height=196)
    log = lines(one, open_model(one), MultimodalInput(prompt="look: <image>", images=images))
    assert {"input_type=3", "prompt=look: <image>", "image=4:1.5"} <= set(log)
    assert ("images=1 of 392x196" in log) == (group not in "AB")
    assert ("tags=||" in log) == (group in "EF"), "empty tags, not NULL"


def test_several_images_tags_video_and_audio_arrive(recorder: Callable, open_model: Callable) -> None:
    images = ImageEmbeds(embed=FLOATS, n_tokens=2, n_images=2, start="<s>", end="<e>", content="<c>")
    video = VideoEmbeds(embed=FLOATS, n_frame_tokens=1, n_frames=4, width=8, height=6, start="<v>")
    audio = AudioEmbeds(embed=FLOATS, n_tokens=4, end="</au>")
    for group in "EF":
        one = recorder(group)
        sound = audio if group == "F" else None
        item = MultimodalInput(prompt="<image><image><video>", images=images, video=video, audio=sound)
        log = lines(one, open_model(one), item)
        assert {"image=2:1.5", "images=2 of 0x0", "tags=<s>|<e>|<c>"} <= set(log)
        assert {"video=1:4:1:1.5 of 8x6", "video_tags=<v>||"} <= set(log)
        assert ({"audio=4:1:1.5", "audio_tags=|</au>|"} <= set(log)) == (group == "F")


@pytest.mark.parametrize("group", ["E", "F"])
def test_tags_of_what_is_absent_are_empty_too(group: str, recorder: Callable, open_model: Callable) -> None:
    one = recorder(group)
    log = lines(one, open_model(one), MultimodalInput(prompt="no image"))
    assert {"tags=||", "video_tags=||"} <= set(log)
    assert ("audio_tags=||" in log) == (group == "F")


ONE_IMAGE = ImageEmbeds(embed=FLOATS, n_tokens=4)


@pytest.mark.parametrize(
    ("group", "item"),
    [
        ("C", PromptInput("[]", role="tool")),
        ("C", PromptInput("hi", enable_thinking=True)),
        (
            "B",
            MultimodalInput(
                prompt="<image><image>", images=ImageEmbeds(embed=FLOATS, n_tokens=2, n_images=2)
            ),
        ),
        ("D", MultimodalInput(prompt="<image>", images=ImageEmbeds(embed=FLOATS, n_tokens=2, start="<s>"))),
        ("D", MultimodalInput(prompt="", video=VideoEmbeds(embed=FLOATS, n_frame_tokens=1, n_frames=4))),
        ("E", MultimodalInput(prompt="", audio=AudioEmbeds(embed=FLOATS, n_tokens=4))),
    ],
    ids=["role", "thinking", "images", "image tags", "video", "audio"],
)
def test_an_input_that_the_release_lacks_is_refused(
    group: str, item, recorder: Callable, open_model: Callable
) -> None:
    one = recorder(group)
    model = open_model(one)
    with pytest.raises(Unsupported):
        lines(one, model, item)
    assert one.log == []


@pytest.mark.parametrize(
    "item",
    [
        PromptInput("a\0b"),
        PromptInput(b"a\0b"),
        PromptInput("\ud800"),
        PromptInput("hi", role="system"),
        PromptInput("it is on", role="tool"),
        TokenInput([]),
        TokenInput([1, -1]),
        TokenInput([2**31]),
        EmbedInput(FLOATS, 0),
        EmbedInput(array.array("d", [1.0]), 1),
        pytest.param(EmbedInput(memoryview(FLOATS)[::2], 1), id="EmbedInput(every second float)"),
        EmbedInput([1.0, 2.0], 1),
        EmbedInput(array.array("f", [1.0]), 2),
        MultimodalInput(prompt="no place", images=ONE_IMAGE),
        MultimodalInput(prompt="<image> without one"),
        MultimodalInput(prompt="<image>", images=ImageEmbeds(embed=FLOATS, n_tokens=0)),
        MultimodalInput(prompt="<video>"),
    ],
    ids=repr,
)
def test_an_input_that_would_be_misread_is_refused(item, recorder: Callable, open_model: Callable) -> None:
    one = recorder("F")
    model = open_model(one)
    with pytest.raises(InvalidInput):
        lines(one, model, item)
    assert one.log == []


def test_thinking_is_refused_once_the_template_was_replaced(recorder: Callable, open_model: Callable) -> None:
    model = open_model(recorder("D"))
    model.generate(PromptInput("hi", enable_thinking=True))
    model.raw_chat_template()
    with pytest.raises(InvalidInput, match="no effect"):
        model.generate(PromptInput("hi", enable_thinking=True))


def test_a_batch_is_one_array_with_the_stride_of_the_release(
    recorder: Callable, open_model: Callable
) -> None:
    for group in "DEF":
        one = recorder(group)
        model = open_model(one, n_batch=3)
        one.forget()
        items = [PromptInput("first"), TokenInput([5, 6]), PromptInput("third", enable_thinking=True)]
        model.generate_batch(items, RunParams(), lambda _tokens: None)
        kept = [line for line in one.log if line.startswith(("prompt_input", "id=", "enable_thinking"))]
        assert kept == [
            *("enable_thinking=0", "prompt_input=first"),
            *("enable_thinking=0", "id=5", "id=6"),
            *("enable_thinking=1", "prompt_input=third"),
        ]
