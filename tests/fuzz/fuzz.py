"""Fuzz one target under atheris: `fuzz.py TARGET [options of libFuzzer] CORPUS...`; see `scripts/fuzz`."""

import sys

import atheris

with atheris.instrument_imports(include=["rkllm_mqtt", "fuzz_targets"]):
    from fuzz_targets import TARGETS


def main() -> None:
    """Fuzz until the time is over or a promise is broken."""
    target = TARGETS[sys.argv[1]]
    # What libFuzzer starts again when it merges: the words are joined by blanks and given to a shell.
    again = f"{sys.executable} -P {sys.argv[0]} {sys.argv[1]}"
    atheris.Setup([again, *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
