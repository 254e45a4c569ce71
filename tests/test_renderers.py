"""What the prompts of each model are made with."""

import pytest

from rkllm_mqtt.config import Config
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.render.renderer import Renderer
from rkllm_mqtt.renderers import build_windows
from rkllm_mqtt.runtime.order import load_order
from rkllm_mqtt.runtime.slot import Slot


def test_the_demonstration_model_is_asked_no_more_than_it_is_loaded_for():
    config = Config()
    slot = Slot(config, lambda: None)
    window = load_order(config, None).params["max_context_len"]
    windows = build_windows(slot, {"demo": Pace()})
    question = [{"role": "user", "content": "word " * window * 4}]
    with pytest.raises(RenderError, match=f"the window of the model {window}"):
        windows.fitted("demo", question, 100, Renderer("chatml").render)
