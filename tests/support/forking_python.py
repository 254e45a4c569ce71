"""A Python that has imported the daemon or the commands, and forks for each process that is asked of it.

It runs as `python -P forking_python.py DESCRIPTOR daemon|command`, and ends when nobody holds the other end
(`ready_python.py`). It imports nothing that a daemon does not: whatever is here is in each fork.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from rkllm_mqtt.absence import absent
from rkllm_mqtt.commands import run

_DAEMON = ("rkllm_mqtt.config", "rkllm_mqtt.logs", "rkllm_mqtt.serving")
_COMMAND = (*_DAEMON, "ssl", "rkllm_mqtt.commands.client")
_ORDER_BYTES = 100_000


def import_all(kind: str) -> None:
    """Import what `rkllm-mqtt run` does without TLS, or what it does with it and what commands do."""
    with absent(*run.left_out(tls=False) if kind == "daemon" else ()):
        for name in _DAEMON if kind == "daemon" else _COMMAND:
            importlib.import_module(name)
    gc.freeze()


def serve(orders: socket.socket) -> NoReturn:
    """Fork, or tell how a fork has ended, order after order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, and for what was forked
    while True:
        line, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 3)
        if not line:
            raise SystemExit(0)
        order = json.loads(line)
        if "reap" in order:
            orders.send(b"%d" % os.waitpid(order["reap"], 0)[1])
            continue
        pid = os.fork()
        if pid == 0:
            orders.close()
            become(order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(b"%d" % pid)


def become(order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Be the process that was asked for; its end is that of an interpreter."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    os.chdir(order["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module = importlib.import_module("rkllm_mqtt.__main__")
    sys.argv = [str(module.__file__), *order["words"]]
    sys.orig_argv = [sys.executable, "-P", "-m", "rkllm_mqtt", *order["words"]]  # for a start anew
    raise SystemExit(module.main())


if __name__ == "__main__":
    import_all(sys.argv[2])
    serve(socket.socket(fileno=int(sys.argv[1])))
