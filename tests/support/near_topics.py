"""The topic tree of a node, and strategies of topics that lie near its borders."""

from hypothesis import strategies as st

from rkllm_mqtt.core.topics import Mailbox, Topics

PATTERNS = ("home/{client}/answers", "voice/{client}", "rkllm/{client}", "rkllm/rock/{client}")
TOPICS = Topics("rkllm", "rock", ("fleet",), PATTERNS)
KITCHEN = Mailbox("rkllm", "rock", "kitchen")
BOX = KITCHEN.prefix
STATE = ("status", "info", "queue", "health", "stats", "log")

# Words that mean something in the tree, so that chance builds topics near the forbidden ones.
LEVELS = st.sampled_from(
    [
        *("rkllm", "rock", "fleet", "other", "client", "kitchen", "hall", "request", "cancel", "reply"),
        *("event", "delta", "last", "admin", "response", "home", "voice", "answers"),
        *("", "+", "#", "$SYS", "\0", "é", *STATE),
    ]
)
NEAR = st.lists(LEVELS, min_size=1, max_size=9).map("/".join)
CLIENTS = st.sampled_from(["kitchen", "hall", "rock", "status", "client", "admin", "request", "a.b-c_1"])
ANY_TOPIC = st.one_of(NEAR, st.text(max_size=40), NEAR.map(lambda tail: f"{BOX}/{tail}"))
