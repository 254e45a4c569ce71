"""Asking the agent, as the Assist dialog does."""


async def test_an_answer_streams(house, agent):
    heard = await house.ask("Tell me a story of 60 words")
    assert heard.error is None, heard.speech
    assert len(heard.pieces) > 5
    assert "".join(heard.pieces) == heard.speech
    assert len(heard.speech.split()) >= 50
