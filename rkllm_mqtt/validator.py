"""A process that holds one JSON value against one JSON schema and ends; each such answer starts one.

Run as `python -P -m rkllm_mqtt.validator`, it reads `{"schema", "value"}` from its standard input and prints
`{"problem"}`: null, or what is wrong with the value.

A schema is a small program of its sender's. Here it can cost neither the daemon's time, for a regular
expression holds the interpreter's lock while it runs, nor its memory; and the library is not in the daemon's.
"""

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any

CPU_LIMIT_S = 5
_MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
_LONGEST_PROBLEM = 400
_PROBLEMS_TOLD = 3


def problem_of(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return what is wrong with a value in words for a model; None when it is valid."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # An empty registry: what is not in the schema itself is not looked for anywhere.
    validator = Draft202012Validator(schema, registry=Registry())
    problems = []
    for error in validator.iter_errors(value):
        where = "".join(f"[{step!r}]" for step in error.absolute_path)
        problems.append(f"{'at ' + where + ': ' if where else ''}{error.message[:_LONGEST_PROBLEM]}")
        if len(problems) == _PROBLEMS_TOLD:
            break
    return "; ".join(problems) or None


def main() -> None:
    """Answer the one question on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES))
    question = json.load(sys.stdin)
    try:
        problem = problem_of(question["schema"], question["value"])
    except RecursionError:
        problem = "it is nested too deeply for this schema"
    json.dump({"problem": problem}, sys.stdout)


if __name__ == "__main__":
    main()
