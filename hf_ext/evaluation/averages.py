"""The means of several tasks' metrics."""

from collections.abc import Mapping

from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

# What a task is judged by in the score over all tasks; the greater, the better.
MAIN_METRICS = {SINGLE_LABEL: "accuracy", MULTI_LABEL: "f1_micro", REGRESSION: "spearman"}


def average_over_tasks(
    metrics: Mapping[str, Mapping[str, float]], problem_types: Mapping[str, str]
) -> dict[str, float]:
    """
    The mean over the tasks of every metric that all of them have, and of their main metrics.

    Args:
        metrics (`Mapping[str, Mapping[str, float]]`): Task -> its metrics, names without prefix.
        problem_types (`Mapping[str, str]`): Task -> kind of task, as in a model's configuration.

    Returns:
        `dict[str, float]`: The means; `score` is that of each task's main metric (accuracy, micro F1 of several labels,
        Spearman's correlation of numbers), and missing if a task lacks its own.
    """
    values = list(metrics.values())
    common = [name for name in values[0] if all(name in of_task for of_task in values)]
    averages = {name: sum(of_task[name] for of_task in values) / len(values) for name in common}
    main = [of_task.get(MAIN_METRICS[problem_types[task]]) for task, of_task in metrics.items()]
    if None not in main:
        averages["score"] = sum(main) / len(main)
    return averages
