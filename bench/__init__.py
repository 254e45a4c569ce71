"""The project's measurements: `python -m bench` puts the daemon beside a thin relay, in one run."""
