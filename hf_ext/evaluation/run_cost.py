"""What a run cost, in words."""

from typing import Any

from hf_ext.evaluation.tables import format_cost


def cost_table(run: dict[str, Any], history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """
    Time, memory and size, as far as they are known.

    Args:
        run (`dict`): As [`RunRecord.as_dict`]: `times`, `memory`, `hardware`, and the `parameters` and `megabytes` of
            its `model`.
        history (`list[dict]`): `trainer.state.log_history`; the trainer's own summary is in its last entries.

    Returns:
        `list[tuple[str, str]]`: Name and value; empty if nothing is known.
    """
    facts = {key: value for key, value in run.items() if isinstance(value, dict)}
    times, memory, model, hardware = (facts.get(key, {}) for key in ("times", "memory", "model", "hardware"))
    training = next((entry for entry in reversed(history) if "train_runtime" in entry), {})
    rows = [
        ("Whole run", "seconds" in times and format_duration(times["seconds"])),
        ("Training", "train_runtime" in training and format_duration(training["train_runtime"])),
        ("Training rows a second", format_cost("texts_per_second", training.get("train_samples_per_second"))),
        ("Training steps", "step" in training and f"{training['step']:,}"),
        ("Parameters", format_cost("parameters", model.get("parameters"))),
        ("Size of the weights", "megabytes" in model and f"{format_cost('megabytes', model['megabytes'])} MB"),
        ("Peak memory", "peak_cpu_memory_mib" in memory and f"{memory['peak_cpu_memory_mib']:,} MiB"),
        ("Peak GPU memory", "peak_gpu_memory_mib" in memory and f"{memory['peak_gpu_memory_mib']:,} MiB"),
        ("Processor", hardware.get("cpu")),
        ("Threads", "torch_threads" in hardware and str(hardware["torch_threads"])),
        ("GPUs", ", ".join(hardware.get("gpus", []))),
    ]
    return [(name, value) for name, value in rows if value]


def format_duration(seconds: float) -> str:
    """`8.4 s`, `3 min 5 s`, `2 h 3 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
