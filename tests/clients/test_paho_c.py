"""Eclipse Paho's C client, the one of embedded Linux."""

import json
import subprocess
import uuid

import pytest

pytestmark = pytest.mark.clients


def read_message(process: subprocess.Popen[str], topic: str) -> str:
    """Return the payload of the next message that `paho_c_sub` prints from a topic."""
    assert process.stdout is not None
    for line in process.stdout:
        head, _, payload = line.partition("\t")
        if head.endswith(f" {topic}"):
            return payload.rstrip("\n")
    raise AssertionError(f"paho_c_sub ended without {topic}")


@pytest.fixture
def replies(paho_c, served):
    """Subscribe to a mailbox's replies; the marker on it proves that the broker has subscribed us."""
    watcher, box = served
    watcher.publish(f"{box}/reply/marker", "subscribed", retain=True)

    def start(version: str) -> subprocess.Popen[str]:
        identity = ["-V", version, "-q", "1", "-i", uuid.uuid4().hex]
        process = paho_c("paho_c_sub", *identity, "-t", f"{box}/reply/#")
        assert read_message(process, f"{box}/reply/marker") == "subscribed"
        return process

    yield start
    watcher.publish(f"{box}/reply/marker", b"", retain=True)


@pytest.mark.parametrize("version", ["311", "5"])
def test_paho_c_gets_the_answers_of_a_text_and_of_a_json_prompt(paho_c, served, replies, version):
    box = served[1]
    answers = replies(version)
    identity = ["-V", version, "-q", "1", "-i", uuid.uuid4().hex]
    for name, prompt in {"text": "hello böard", "json": json.dumps({"prompt": "hello böard"})}.items():
        assert paho_c("paho_c_pub", *identity, "-t", f"{box}/request/{name}", "-m", prompt).wait() == 0
    assert read_message(answers, f"{box}/reply/text") == "You said: hello böard"
    final = json.loads(read_message(answers, f"{box}/reply/json"))
    assert (final["status"], final["text"]) == ("ok", "You said: hello böard")


def test_a_user_property_of_paho_c_comes_back_to_it(paho_c, served, replies):
    box = served[1]
    answers = replies("5")
    properties = ["--user-property", "x-room", "kitchen", "--message-expiry", "60"]
    asked = paho_c("paho_c_pub", "-V", "5", "-q", "1", *properties, "-t", f"{box}/request/q1", "-m", "hello")
    assert asked.wait() == 0
    read_message(answers, f"{box}/reply/q1")
    assert answers.stdout.readline() == "Property name USER_PROPERTY key x-room value kitchen\n"
