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


async def test_questions_are_answered_with_probabilities(house, agent):
    task = await house.entity("rkllm_mqtt", "ai_task")
    answer = await house.service(
        "ai_task.evaluate",
        answer=True,
        entity_id=task,
        task_name="door",
        state={"front door": "open", "said": "turn it off in here"},
        questions={
            "open": {"type": "noul", "instructions": "Is the front door open?"},
            "room": {
                "type": "choice",
                "instructions": "Which room is meant?",
                "criteria": {"kitchen": "where one cooks", "bedroom": "where one sleeps", "none": "no room"},
            },
            "urgent": {
                "type": "score",
                "instructions": "How urgent is it?",
                "criteria": ["not at all", "somewhat", "very"],
            },
        },
    )
    answers = answer["answers"]
    assert 0.95 < answers["open"]["noul"] <= 1
    room = answers["room"]
    assert (room["choice"], list(room["probabilities"])) == ("bedroom", ["kitchen", "bedroom", "none"])
    assert abs(sum(room["probabilities"].values()) - 1) < 1e-6
    assert 1.9 < answers["urgent"]["score"] <= 2
    assert max(answers["urgent"]["probabilities"]) == answers["urgent"]["probabilities"][2]
