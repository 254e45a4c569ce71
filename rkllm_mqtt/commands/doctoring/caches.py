"""Findings about the runtime's caches: what of a prompt it computes again, and what its files help."""

from collections.abc import Iterator

from rkllm_mqtt.commands.doctoring.caches_probe import CachesProbe, Learned
from rkllm_mqtt.commands.doctoring.finding import Finding, Group
from rkllm_mqtt.core.cachefacts import CacheFacts

_QUESTIONS = (
    (
        "reuses_finished", "prompts",
        "A prompt that begins like the one before is computed only from where they part.",
        "Every prompt is computed from its beginning, also one that begins like the one before.",
    ),
    (
        "reuses_aborted", "aborted runs",
        "So it is when the run before was aborted.",
        "What an aborted run has computed is computed again.",
    ),
    (
        "holds_generated", "answers",
        "An answer that comes back in the next prompt is not computed again.",
        "An answer that comes back in the next prompt is computed again.",
    ),
    (
        "load_replaces", "file loaded",
        "Loading a prompt-cache file drops what was in the cache.",
        "Loading a prompt-cache file leaves what was in the cache.",
    ),
    (
        "loaded_stays", "file kept",
        "A loaded file still helps after a run of another prompt.",
        "A loaded file helps the next run only.",
    ),
    (
        "aborted_saves", "file aborted",
        "A run that is aborted leaves its prompt-cache file all the same.",
        "A run that is aborted leaves no prompt-cache file.",
    ),
)  # fmt: skip
"""Field of CacheFacts, check, and what yes and no mean."""


def check_caches(probe: CachesProbe) -> list[Finding]:
    """Return the findings about the caches of all models."""
    group = Group("Caches")
    if probe.problem:
        return [group.skip("journal", f"What the runtime does was not asked: {probe.problem}.")]
    findings = [finding for name, learned in probe.models.items() for finding in _of(name, learned)]
    if not probe.asked:
        sentence = "The daemon is running; this is what it has learned, in its idle time."
        advice = "The admin command `probe` with `again` lets it ask anew; or stop it and run this again."
        findings.insert(0, group.skip("daemon", sentence, advice))
    elif not probe.kept:
        sentence = "What was learned is not kept: there is no journal of this user."
        findings.append(
            group.skip("journal", sentence, "The daemon finds it out by itself in its idle time.")
        )
    return findings


def _of(model_id: str, learned: Learned) -> Iterator[Finding]:
    group = Group(f"Caches of {model_id}")
    if learned.problem:
        yield group.skip("probe", f"Nothing was asked: {learned.problem}.".replace("..", "."), learned.hint)
        return
    if learned.failed:
        sentence = f"The library failed when it was asked ({', '.join(learned.failed)}); it goes on without."
        yield group.warn("probe", sentence, "Another release of the runtime may do better.")
    facts = learned.facts
    for field, check, yes, no in _QUESTIONS:
        value = getattr(facts, field)
        yield group.skip(check, "Not known.") if value is None else group.ok(check, yes if value else no)
    yield _blocks(group, facts)
    yield _cost(group, facts)


def _blocks(group: Group, facts: CacheFacts) -> Finding:
    if facts.granularity is None:
        return group.skip("blocks", "Not known.")
    if facts.granularity == 1:
        return group.ok("blocks", "What two prompts have in common counts to the token.")
    return group.ok(
        "blocks", f"What two prompts have in common counts in blocks of {facts.granularity} tokens."
    )


def _cost(group: Group, facts: CacheFacts) -> Finding:
    if not facts.can_restore:
        return group.skip("files", "Prompt-cache files are not used: that they help is not known.")
    load_ms, save_ms = facts.load_s(1000) * 1000, facts.save_s(1000) * 1000
    megabytes = 1000 * (facts.bytes_per_token or 0) / 1e6
    return group.ok(
        "files",
        f"1,000 tokens take {megabytes:.0f} MB, {load_ms:.0f} ms to load and {save_ms:.0f} ms to save.",
    )
