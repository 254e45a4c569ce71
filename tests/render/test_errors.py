"""The promise of `render/errors.py`: an error carries what to say, what to do and whose turn it is."""

from rkllm_mqtt.render.errors import RenderError


def test_an_error_carries_message_hint_and_code():
    error = RenderError("no template", "name one")
    assert (str(error), error.message, error.hint, error.code) == (
        "no template",
        "no template",
        "name one",
        "model_error",
    )
    assert RenderError("a", "b", "too_large").code == "too_large"
