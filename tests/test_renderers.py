"""What the prompts of each model are made with."""

import pytest
from live_jobs import make_job, request

from rkllm_mqtt.config import Config
from rkllm_mqtt.config.catalogue import configured_catalogue
from rkllm_mqtt.core.pace import Pace
from rkllm_mqtt.render.errors import RenderError
from rkllm_mqtt.renderers import open_kits
from rkllm_mqtt.runtime.order import load_order


def test_the_demonstration_model_is_asked_no_more_than_it_is_loaded_for():
    config = Config()
    window = load_order(config, None).params["max_context_len"]
    orders = open_kits(configured_catalogue(config), 2.0).build_orders({"demo": Pace()})
    question = [{"role": "user", "content": "word " * window * 4}]
    with pytest.raises(RenderError, match=f"the window of the model {window}"):
        orders.make(make_job(request("", messages=tuple(question), model="demo", max_tokens=100)))
