"""What C code prints must not be lost with a process that dies."""

import os
import signal
import subprocess
import sys

SCRIPT = """
import ctypes, os, signal, rkllmrt
rkllmrt.line_buffer_c_stdout()
ctypes.CDLL(None).puts(b"the last words")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_line_that_c_code_has_printed_survives_the_death_of_its_process() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    child = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, env=environment, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert child.stdout == b"the last words\n"
