"""Names of the integration and defaults of its settings."""

import logging
from typing import Final

DOMAIN: Final = "rkllm_mqtt"
LOGGER = logging.getLogger(__package__)

PROTOCOL_MAJOR: Final = "1"
DEFAULT_BASE: Final = "rkllm"
DEFAULT_CLIENT: Final = "homeassistant"

SUBENTRY_CONVERSATION: Final = "conversation"
SUBENTRY_AI_TASK: Final = "ai_task_data"

CONF_BASE: Final = "base"
CONF_NODE: Final = "node"
CONF_CLIENT: Final = "client"
CONF_MAX_TOKENS: Final = "max_tokens"
CONF_TEMPERATURE: Final = "temperature"
CONF_THINKING: Final = "thinking"
CONF_HISTORY: Final = "history_turns"
CONF_TOOLS: Final = "tools"
CONF_SELECTED_TOOLS: Final = "selected_tools"
CONF_PRIORITY: Final = "priority"

TOOLS_ALL: Final = "all"
TOOLS_CONTROL: Final = "control"
TOOLS_SELECTED: Final = "selected"

DEFAULT_MAX_TOKENS: Final = 400
DEFAULT_TASK_MAX_TOKENS: Final = 1024
DEFAULT_HISTORY: Final = 8

DEFAULT_PROMPT: Final = """You are a voice assistant for Home Assistant.
Answer in plain text, in one or two short sentences, in the language of the question.
Do not end with a question unless you need an answer to act."""
"""A model that ends every answer with a question keeps the microphone open."""

FEATURE_TOOLS: Final = "tools"
FEATURE_RESPONSE_FORMAT: Final = "response_format"
FEATURE_EVALUATE: Final = "evaluate"
FEATURE_PREFIXES: Final = "prefixes"
FEATURE_WARM: Final = "warm"

ISSUE_PROTOCOL: Final = "protocol_mismatch"
ISSUE_MODEL: Final = "model_not_served"
ISSUE_CONTEXT: Final = "prompt_over_context"
