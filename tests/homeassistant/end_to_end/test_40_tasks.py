"""AI tasks, as automations use them."""


async def test_a_task_gives_text(house, agent):
    task = await house.entity("rkllm_mqtt", "ai_task")
    answer = await house.service(
        "ai_task.generate_data", answer=True, entity_id=task, task_name="t", instructions="say: forty-two"
    )
    assert answer["data"] == "forty-two"


async def test_a_task_gives_data_as_its_structure_wants_it(house, agent):
    task = await house.entity("rkllm_mqtt", "ai_task")
    answer = await house.service(
        "ai_task.generate_data",
        answer=True,
        entity_id=task,
        task_name="weather",
        instructions="Make a weather report.",
        structure={
            "word": {"selector": {"text": None}, "required": True},
            "degrees": {"selector": {"number": {}}, "required": True},
        },
    )
    assert answer["data"] == {"word": "sunny", "degrees": 21}
