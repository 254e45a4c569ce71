"""What a person types with mosquitto's own command-line clients works as the protocol says."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from live_broker import Broker
from live_client import PATIENCE_S

VERSIONS = pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])


class Terminal:
    """Types the clients' commands against one broker; each has ended, or is ended, when the test ends."""

    def __init__(self, port: int, version: str) -> None:
        self._where = ["-h", "127.0.0.1", "-p", str(port), "-V", version]
        self._open: list[subprocess.Popen[str]] = []

    def type(self, program: str, *arguments: str, typed: str | None = None) -> str:
        """Run a command to its end, assert that it succeeded, and return what it printed."""
        done = subprocess.run(
            [program, *self._where, *arguments],
            capture_output=True,
            text=True,
            input=typed,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done
        return done.stdout

    def subscribe(self, node: str, *arguments: str) -> subprocess.Popen[str]:
        """Start `mosquitto_sub` and return once the broker has subscribed it.

        The retained `status` is subscribed last: when its `online` is printed, all filters before it count.
        """
        command = ["mosquitto_sub", *self._where, "-W", str(int(PATIENCE_S)), *arguments]
        process = subprocess.Popen(
            [*command, "-t", f"rkllm/{node}/status"], stdout=subprocess.PIPE, text=True
        )
        self._open.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().endswith("online\n"), "the daemon is not online"
        return process

    def close(self) -> None:
        """End what is still running."""
        for process in self._open:
            process.kill()
            process.communicate()


@pytest.fixture
def terminal(shared_broker: Broker) -> Iterator[Callable[..., Terminal]]:
    """Open terminals whose clients speak one protocol version."""
    made: list[Terminal] = []

    def make(version: str) -> Terminal:
        made.append(Terminal(shared_broker.port, version))
        return made[-1]

    yield make
    for terminal in made:
        terminal.close()


@pytest.fixture
def box(served: tuple[object, str]) -> str:
    """A mailbox nobody else uses."""
    return served[1]


def read_until_complete(process: subprocess.Popen[str], box: str, request_id: str) -> dict[str, list[Any]]:
    """Return the payloads that `mosquitto_sub -v` prints by kind, once the final and its deltas are there."""
    kinds: dict[str, list[Any]] = {"event": [], "delta": [], "reply": []}
    assert process.stdout is not None
    while not kinds["reply"] or len(kinds["delta"]) < kinds["reply"][0]["deltas"]:
        line = process.stdout.readline()
        assert line, f"mosquitto_sub ended after {kinds}"
        topic, payload = line.rstrip("\n").split(" ", 1)
        prefix, kind, tail = topic.rsplit("/", 2)
        assert (prefix, tail) == (box, request_id)
        kinds[kind].append(json.loads(payload))
    return kinds


def read_until_final(process: subprocess.Popen[str], reply_topic: str) -> Any:
    """Skip what `mosquitto_sub -v` prints before the final, and return that."""
    assert process.stdout is not None
    for line in process.stdout:
        topic, payload = line.rstrip("\n").split(" ", 1)
        if topic == reply_topic:
            return json.loads(payload)
    raise AssertionError(f"mosquitto_sub ended without {reply_topic}")


@VERSIONS
def test_a_text_prompt_goes_in_with_mosquitto_pub_and_bare_text_comes_out_of_mosquitto_sub(
    version, terminal, box, shared_daemon
):
    here = terminal(version)
    # Two messages: the retained status that says "subscribed", and the one answer.
    answer = here.subscribe(shared_daemon.node, "-q", "1", "-C", "2", "-t", f"{box}/reply/#")
    here.type("mosquitto_pub", "-q", "1", "-t", f"{box}/request/door", "-m", "hello böard")
    assert answer.communicate(timeout=PATIENCE_S)[0] == "You said: hello böard\n"
    assert answer.returncode == 0


@VERSIONS
def test_a_prompt_piped_into_mosquitto_pub_at_qos_0_is_answered_without_an_id(
    version, terminal, box, shared_daemon
):
    here = terminal(version)
    answer = here.subscribe(shared_daemon.node, "-C", "2", "-t", f"{box}/reply")
    here.type("mosquitto_pub", "-t", f"{box}/request", "-s", typed="two lines\nin one prompt")
    assert answer.communicate(timeout=PATIENCE_S)[0] == "You said: two lines\nin one prompt\n"


@VERSIONS
def test_a_streamed_json_request_prints_events_gapless_deltas_and_one_final(
    version, terminal, box, shared_daemon
):
    here = terminal(version)
    topics = [part for kind in ("event", "delta", "reply") for part in ("-t", f"{box}/{kind}/q1")]
    lines = here.subscribe(shared_daemon.node, "-v", "-q", "1", *topics)
    request = json.dumps({"prompt": "story 60 tokens", "stream": True})
    here.type("mosquitto_pub", "-q", "1", "-t", f"{box}/request/q1", "-m", request)

    kinds = read_until_complete(lines, box, "q1")
    final = kinds["reply"][0]
    assert (final["status"], final["finish_reason"]) == ("ok", "stop")
    assert final["usage"]["completion_tokens"] == 60
    assert [delta["seq"] for delta in kinds["delta"]] == list(range(final["deltas"]))
    assert "".join(delta["text"] for delta in kinds["delta"]) == final["text"] != ""
    assert [event["type"] for event in kinds["event"]][:2] == ["accepted", "started"]


def test_mosquitto_pub_cancels_a_running_answer_with_an_empty_message(terminal, served_slowly, slow_daemon):
    here, (_, box) = terminal("mqttv5"), served_slowly
    lines = here.subscribe(slow_daemon.node, "-v", "-t", f"{box}/delta/long", "-t", f"{box}/reply/long")
    request = json.dumps({"prompt": "story 400 tokens", "stream": True})
    here.type("mosquitto_pub", "-q", "1", "-t", f"{box}/request/long", "-m", request)
    assert lines.stdout is not None
    assert lines.stdout.readline().startswith(f"{box}/delta/long ")
    here.type("mosquitto_pub", "-q", "1", "-t", f"{box}/cancel/long", "-n")
    assert read_until_final(lines, f"{box}/reply/long")["error"]["code"] == "cancelled"


@VERSIONS
def test_the_five_retained_states_are_read_at_once_with_mosquitto_sub(
    version, terminal, served, shared_daemon
):
    node = shared_daemon.node
    served[0].reply(f"rkllm/{node}/stats")  # QoS 0, and only at the start and every 30 s: be sure it is there
    printed = terminal(version).type(
        "mosquitto_sub", "-v", "-C", "5", "-W", "20", "--retained-only", "-t", f"rkllm/{node}/+"
    )
    states = dict(line.split(" ", 1) for line in printed.splitlines())
    assert states.pop(f"rkllm/{node}/status") == "online"
    assert set(states) == {f"rkllm/{node}/{kind}" for kind in ("info", "queue", "health", "stats")}
    assert json.loads(states[f"rkllm/{node}/info"])["schema"] == "1.0"
    assert json.loads(states[f"rkllm/{node}/queue"])["limit"] > 0


@VERSIONS
def test_mosquitto_rr_gets_the_bare_text_of_a_text_prompt_and_exits_0(version, terminal, box):
    """On 3.1.1 there is no response topic to ask for: the answer comes to `reply` of the own mailbox."""
    there = ["-t", f"{box}/request", "-e", f"{box}/reply"]
    printed = terminal(version).type("mosquitto_rr", *there, "-m", "hi there", "-q", "1", "-W", "20")
    assert printed == "You said: hi there\n"


def test_mosquitto_rr_gets_the_final_of_a_streamed_request_as_its_only_message_and_its_properties_back(
    terminal, box
):
    """It ends at the first message on its response topic: an event or a delta there would be taken for it."""
    printed = terminal("mqttv5").type(
        "mosquitto_rr", "-q", "1", "-W", "20", "-t", f"{box}/request/rr", "-e", f"{box}/answers/mine",
        "-m", json.dumps({"prompt": "story 60 tokens", "stream": True}), "-F", "%t|%D|%P|%p",
        "-D", "publish", "correlation-data", "abc", "-D", "publish", "user-property", "x-room", "kitchen",
    )  # fmt: skip
    topic, correlation_data, user_property, payload = printed.split("|", 3)
    assert (topic, correlation_data, user_property) == (f"{box}/answers/mine", "abc", "x-room:kitchen")
    final = json.loads(payload)
    assert (final["id"], final["status"]) == ("rr", "ok")
    assert final["usage"]["completion_tokens"] == 60


def test_mosquitto_rr_gets_a_refusal_too_instead_of_waiting_for_its_timeout(terminal, box):
    there = ["-t", f"{box}/request", "-e", f"{box}/reply"]
    printed = terminal("mqttv5").type("mosquitto_rr", *there, "-m", '{"prompt": ', "-q", "1", "-W", "20")
    assert json.loads(printed)["error"]["code"] == "invalid_json"
