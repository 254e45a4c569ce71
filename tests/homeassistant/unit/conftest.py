"""Home Assistant with our integration, and a board on the wire."""

# Imported before the plugin's own package of this name can be: ours must win.
import custom_components  # noqa: F401
import pytest
from board import NODE, Board
from custom_components.rkllm_mqtt import client
from custom_components.rkllm_mqtt.const import DOMAIN, SUBENTRY_AI_TASK, SUBENTRY_CONVERSATION
from homeassistant.components import conversation
from homeassistant.config_entries import ConfigSubentryData
from homeassistant.core import Context
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry


@pytest.fixture(autouse=True)
async def _home(hass, enable_custom_integrations, mqtt_mock):
    assert await async_setup_component(hass, "homeassistant", {})
    assert await async_setup_component(hass, "conversation", {})


@pytest.fixture
def expected_lingering_timers():
    """The mocked MQTT client of the plugin leaves its one-second timer behind."""
    return True


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """Let silences be noticed soon: these tests do not wait for seconds."""
    monkeypatch.setattr(client, "_LOOK_S", 0.01)
    monkeypatch.setattr("custom_components.rkllm_mqtt.probe.LISTEN_S", 0.05)


@pytest.fixture
def board(hass, mqtt_mock):
    """One node."""
    return Board(hass, mqtt_mock)


def make_entry(*, node=NODE, agent=None, task=None, uid=None):
    """An entry as the config flow makes it."""
    base, name = node.split("/")
    return MockConfigEntry(
        domain=DOMAIN,
        title=f"RKLLM {name}",
        unique_id=uid or "61a2f9093fba426384687a07cae5e5f4",
        data={"base": base, "node": name, "client": "homeassistant"},
        subentries_data=[
            ConfigSubentryData(
                subentry_type=SUBENTRY_CONVERSATION, title="Agent", data=agent or {}, unique_id=None
            ),
            ConfigSubentryData(subentry_type=SUBENTRY_AI_TASK, title="Task", data=task or {}, unique_id=None),
        ],
    )


@pytest.fixture
def entry():
    """An entry whose agent talks only."""
    return make_entry()


@pytest.fixture
async def loaded(board, entry):
    """The entry, set up."""
    assert await board.setup(entry)
    return entry


@pytest.fixture
def ask(hass):
    """Ask the agent."""

    def start(text, conversation_id=None, language="en", agent="conversation.agent", **more):
        return hass.async_create_task(
            conversation.async_converse(
                hass, text, conversation_id, Context(), language, agent_id=agent, **more
            )
        )

    return start


def speech(result):
    """Return what is said."""
    return result.response.speech["plain"]["speech"]
