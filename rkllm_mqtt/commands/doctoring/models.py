"""Checks of the configured models: the file, the platform it is for, the memory it needs."""

from rkllm_mqtt.commands.doctoring.finding import Finding, Group
from rkllm_mqtt.commands.doctoring.subject import Subject
from rkllm_mqtt.config import ModelConfig
from rkllm_mqtt.host.memory import MB
from rkllm_mqtt.host.modelfile import ModelFile, file_fault, size_for_people

GROUP = Group("Models")


def check_models(subject: Subject) -> list[Finding]:
    """Return the findings about each configured model."""
    findings = [
        GROUP.warn(path.name, f"{path} is left out: {why}.", "Rename it.")
        for path, why in subject.left_out.items()
    ]
    if not subject.models:
        if subject.config.models_folder is not None and not subject.simulated:
            advice = "Put a converted .rkllm file there; the daemon notices it."
            return [GROUP.fail("models", f"{subject.config.models_folder} holds none.", advice), *findings]
        if subject.simulated:
            said = "None is configured: the simulator's demonstration model is used"
            return [GROUP.ok("models", said), *findings]
        advice = "Add one under `models:` (`rkllm-mqtt config example` shows how)."
        return [GROUP.fail("models", "None is configured.", advice)]
    for model, file in subject.models:
        findings.append(model_file(subject, model, file))
        if file.exists and file.loadable:
            findings += [
                found for found in (platform(subject, model, file), memory(subject, model, file)) if found
            ]
    return findings


def model_file(subject: Subject, model: ModelConfig, file: ModelFile) -> Finding:
    """Report the file itself, its worst problem first."""
    fault = subject.faults.get(model.id)
    if fault is not None:
        return GROUP.fail(model.id, f"{fault.message}.", fault.hint)
    if all(model.id != named.id for named in subject.config.models):
        board = subject.board.platform
        fault = file_fault(file, native=not subject.simulated, board=board, trusted=False)
        if fault is not None:
            return GROUP.fail(model.id, f"{fault.message}: it is not loaded.", fault.hint)
    problems = sorted(file.problems, key=lambda problem: not problem.certain)
    if problems:
        sentence = "; ".join(f"{problem.sentence}" for problem in problems)
        report = GROUP.fail if problems[0].certain else GROUP.warn
        return report(model.id, f"{model.file} {sentence}.", problems[0].hint)
    if file.simulated != subject.simulated:
        if file.simulated:
            advice = "Name a converted .rkllm file, or set `runtime.simulator: true`."
            return GROUP.fail(
                model.id, f"{model.file} is for the simulator, but the NPU's library is used.", advice
            )
        advice = "Install librkllmrt.so, or use a model of the simulator (`rkllm-simulator 1`)."
        return GROUP.fail(model.id, f"{model.file} needs the NPU, but the simulator is used.", advice)
    if file.context_tokens is not None and model.context_tokens > file.context_tokens:
        sentence = (
            f"{model.context_tokens} tokens of context are more than the model's {file.context_tokens}."
        )
        return GROUP.fail(model.id, sentence, f"Set its context_tokens to {file.context_tokens}.")
    return GROUP.ok(model.id, f"{model.file}, {size_for_people(file.size_bytes)}")


def platform(subject: Subject, model: ModelConfig, file: ModelFile) -> Finding | None:
    """Compare the chip in the file's name with the board's; the name can be wrong, so it is a suspicion."""
    board = subject.board.platform
    if subject.simulated or board is None or file.platform is None or file.platform == board:
        return None
    advice = f"Convert it with target_platform={board!r}, or download that variant."
    return GROUP.warn(model.id, f"Its name says {file.platform}, this board is an {board}.", advice)


def memory(subject: Subject, model: ModelConfig, file: ModelFile) -> Finding | None:
    """Compare the size of the weights with the board's memory; what the context needs comes on top."""
    total, available = subject.board.memory.total_mb, subject.board.memory.available_mb
    if subject.simulated or total is None or available is None:
        return None
    needed = file.size_bytes // MB
    smaller = "Use a smaller model or a smaller quantisation; `runtime.embed_flash: true` saves some."
    if needed >= total:
        return GROUP.fail(model.id, f"Its {needed} MB do not fit into {total} MB of memory.", smaller)
    if needed >= available:
        sentence = (
            f"It needs {needed} MB, of which {available} MB are free now (unless it is already loaded)."
        )
        return GROUP.warn(model.id, sentence, f"End other programs. {smaller}")
    return GROUP.ok(model.id, f"needs about {needed} MB of memory; {available} MB of {total} MB are free")
