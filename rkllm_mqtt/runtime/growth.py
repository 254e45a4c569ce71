"""Notice that a worker process grows from run to run."""


class Growth:
    """The memory of one worker, measured against what it had after its first run.

    The first run is left out: the library takes its working memory then, once.
    """

    def __init__(self, limit_mb: float) -> None:
        """Keep the limit; 0 means that nothing is ever too large."""
        self.limit_mb = limit_mb
        self._first_mb: float | None = None
        self.mb = 0.0
        """By how much it had grown when it was looked at last."""

    @property
    def too_large(self) -> bool:
        """Return whether it has grown beyond the limit."""
        return 0 < self.limit_mb < self.mb

    def look(self, memory_mb: float | None) -> None:
        """Take a reading after a run; None is no reading."""
        if memory_mb is None:
            return
        if self._first_mb is None:
            self._first_mb = memory_mb
        self.mb = memory_mb - self._first_mb
