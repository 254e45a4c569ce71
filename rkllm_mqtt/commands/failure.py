"""How a command ends when it cannot do its work: one sentence, a hint, an exit status; no traceback."""

from rkllm_mqtt.core.errors import RkllmMqttError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
"""As sysexits.h: the broker or the daemon is not there."""
EXIT_JOURNAL = 74
"""As EX_IOERR of sysexits.h: the journal cannot be used."""
EXIT_CONFIG = 78
"""As sysexits.h: the configuration is wrong."""
EXIT_INTERRUPTED = 130
"""As shells report a process ended by SIGINT."""


class CommandFailed(RkllmMqttError):
    """The command cannot go on; the message is one sentence for the person who typed it."""

    def __init__(self, message: str, hint: str = "", status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        """What to do about it; empty when nothing helps."""
        self.status = status


class BrokerUnreachable(CommandFailed):
    """No connection to the broker could be made, or it was lost."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, EXIT_UNAVAILABLE)


class DaemonUnavailable(CommandFailed):
    """The broker is there, the daemon is not."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, EXIT_UNAVAILABLE)
