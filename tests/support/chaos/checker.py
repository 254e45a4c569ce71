"""Judge a recording: every promise that was broken in it, and how often each could be checked."""

from collections import Counter
from dataclasses import dataclass, field

from chaos import outcome_rules, state_rules
from chaos.answers import Thread, threads
from chaos.recording import Recording


@dataclass(slots=True)
class Judgement:
    """What the checker found."""

    violations: list[str] = field(default_factory=list)
    """One sentence each; it begins with the rule's name."""
    checked: Counter[str] = field(default_factory=Counter)
    """How often each rule had something to look at."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """How requests ended: `ok` or the code of the error."""
    threads: list[Thread] = field(default_factory=list)


def judge(recording: Recording) -> Judgement:
    """Check every rule on a recording."""
    found = Judgement(threads=threads(recording))
    found.checked.update(dict.fromkeys(("offline", "online"), 0))  # a busy machine may leave nothing to judge
    for thread in found.threads:
        found.outcomes[thread.code] += 1
        for rule in outcome_rules.RULES:
            found.violations += [
                f"{rule.__name__}: {sentence}" for sentence in rule(thread, recording, found.checked)
            ]
    for state_rule in state_rules.RULES:
        found.violations += [
            f"{state_rule.__name__}: {sentence}"
            for sentence in state_rule(recording, found.threads, found.checked)
        ]
    return found
