"""What a search leaves: every trial, the best configuration, and pictures of the study."""

import warnings
from typing import Any

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.report import Image, Supplements, Table, write_report
from hf_ext.evaluation.tables import METRIC_TITLES, aligned, format_number
from hf_ext.experiments.search import Search
from hf_ext.experiments.search_queue import TrialQueue
from hf_ext.experiments.shared_storage import readable_storage
from hf_ext.files import write_json
from hf_ext.run_record import SECRETS, RunRecord
from hf_ext.secret_patterns import without_password
from hf_ext.settings import TRAINING_SETTINGS

SHOWN_TRIALS = 10
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
# A run trains, validates and tests without being told.
LEFT_OUT = ("do_train", "do_eval", "do_predict", *SECRETS)


def search_results(search: Search, queue: TrialQueue) -> dict[str, Any]:
    """
    All trials and what they were about, JSON-able.

    Args:
        search ([`Search`]): What was searched.
        queue ([`TrialQueue`]): Its trials.

    Returns:
        `dict[str, Any]`
    """
    facts = search.facts
    trials = [_trial_view(slot, attempts) for slot, attempts in queue.trials().items()]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    sign = -1 if search.greater_is_better else 1
    return {
        "metric": search.metric,
        "greater_is_better": search.greater_is_better,
        "method": search.arguments.search_method,
        "pruner": search.arguments.pruner,
        "space": facts["search_space"],
        "sampler_seed": search.arguments.sampler_seed,
        "seeds": facts["seeds"],
        "folds": search.arguments.search_folds,
        "num_trials": search.size,
        "study": {"name": search.arguments.study_name, "storage": without_password(search.storage)},
        "data": facts["data"],
        "settings": facts["settings"],
        "finished": all(trial["state"] not in ("running", "waiting") for trial in trials),
        "best": min(complete, key=lambda trial: (sign * trial["value"], trial["trial"])) if complete else None,
        "trials": trials,
    }


def best_configuration(search: Search, parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """
    A configuration for `run_classification.py` that trains what a trial has trained (with the first of its seeds).

    Args:
        search ([`Search`]): What was searched.
        parameters (`dict[str, Any]`): The trial's.

    Returns:
        `dict[str, dict[str, Any]]`: Section -> field -> value, of the fields that are not left to their defaults.
    """
    values = {**search.trial_values(parameters), "output_dir": str(search.output_dir / "best")}
    if search.arguments.search_seeds:
        values["seed"] = search.arguments.search_seeds[0]
    sections = {
        section: {name: values[name] for name in kind.__dataclass_fields__ if name in values and name not in LEFT_OUT}
        for section, kind in TRAINING_SETTINGS.items()
    }
    return {section: fields for section, fields in sections.items() if fields}


def trials_table(results: dict[str, Any]) -> str:
    """
    The best trials for the console.

    Args:
        results (`dict[str, Any]`): From [`search_results`].

    Returns:
        `str`: A header and a row a trial, the best first; without a final newline.
    """
    names = list(results["space"])
    best = [trial for trial in _best_first(results) if trial["state"] == "complete"][:SHOWN_TRIALS]
    return aligned([("trial", results["metric"], *names, "seconds"), *(_trial_cells(trial, names) for trial in best)])


def write_search(search: Search, queue: TrialQueue, record: RunRecord, notes: list[str]) -> dict[str, Any]:
    """
    Write `search_results.json`, `best_config.json`, the pictures, `report.html` and `run.json`, and print the best
    trials.

    Args:
        search ([`Search`]): What was searched.
        queue ([`TrialQueue`]): Its trials.
        record ([`RunRecord`]): The run's facts.
        notes (`list[str]`): What a reader has to know.

    Returns:
        `dict[str, Any]`: From [`search_results`].

    Raises:
        ConfigurationError: If all trials have failed, with their reasons.
    """
    with readable_storage(search.storage):
        results = search_results(search, queue)
    write_json(search.output_dir / "search_results.json", results)
    best, trials = results["best"], results["trials"]
    if best is None:
        if results["finished"]:
            raise ConfigurationError(_all_failed(trials))
        print("No trial is complete yet; the same command goes on.")
        return results
    write_json(search.output_dir / "best_config.json", best_configuration(search, best["parameters"]))
    said = _summary(results)
    with readable_storage(search.storage):
        images = draw_study(search, queue)
    record.add(results={"best": best, "trials": _counts(trials)})
    report = write_report(
        search.output_dir / "report.html",
        title=f"Search: {search.arguments.study_name}",
        splits={},
        metrics={},
        intervals={},
        history=[],
        run=record.as_dict(),
        notes=[*said, *notes],
        supplements=Supplements(tables=[_report_table(results)], images=images),
    )
    record.write(search.output_dir)
    print(f"\n{trials_table(results)}\n")
    for sentence in said:
        print(sentence)
    print(f"\nBest configuration: {search.output_dir / 'best_config.json'}\nReport: {report}")
    return results


def draw_study(search: Search, queue: TrialQueue) -> list[Image]:
    """
    Write the study's history, its parallel coordinates and, where trials differ, the importance of the parameters.

    Args:
        search ([`Search`]): What was searched.
        queue ([`TrialQueue`]): Its trials, one of them complete.

    Returns:
        `list[Image]`: For the report.
    """
    import matplotlib.pyplot as plt
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization import matplotlib as drawings

    study, metric = queue.study, search.metric
    values = [trial.value for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    pictures = {
        "history": (
            "Search history",
            f"The {metric} of each trial in the order in which they began, and the best so far.",
            lambda: drawings.plot_optimization_history(study, target_name=metric),
        ),
        "parallel": (
            "Parallel coordinates",
            f"A line a trial: its {metric} and its parameters.",
            lambda: _clearer(drawings.plot_parallel_coordinate(study, target_name=metric), search.greater_is_better),
        ),
    }
    if len(set(values)) > 1 and len(search.space.parameters) > 1:
        pictures["importance"] = (
            "Importance of the parameters",
            f"Share of the differences in {metric} that each parameter accounts for (fANOVA, Hutter et al. 2014); with "
            "few trials a rough idea.",
            lambda: drawings.plot_param_importances(
                study, evaluator=FanovaImportanceEvaluator(seed=0), target_name=metric
            ),
        )
    images, backend = [], plt.get_backend()
    plt.switch_backend("agg")
    try:
        for name, (title, description, draw) in pictures.items():
            path = search.output_dir / f"search_{name}.png"
            with plt.rc_context(), warnings.catch_warnings():
                # That Optuna's drawings may change.
                warnings.simplefilter("ignore")
                figure = draw().figure
                figure.savefig(path, dpi=120, bbox_inches="tight")
                plt.close(figure)
            images.append(Image(title, path, description))
    finally:
        plt.switch_backend(backend)
    return images


# ---- Inside ----


def _clearer(axes: Any, greater_is_better: bool) -> Any:
    """Parallel coordinates: the best dark, the poorest not white, the last axis not behind the colour bar."""
    for lines in axes.collections:
        lines.set_cmap("cividis_r" if greater_is_better else "cividis")
    for other in axes.figure.axes:
        if other.get_label() == "<colorbar>":
            left, bottom, width, height = other.get_position().bounds
            other.set_position((left + 0.08, bottom, width, height))
    return axes


def _trial_view(slot: int, attempts: list[Any]) -> dict[str, Any]:
    trial = attempts[-1]
    parts = trial.user_attrs.get("parts", [])
    abandoned = trial.state.name == "FAIL" and "reason" not in trial.user_attrs
    return {
        "trial": slot + 1,
        "parameters": dict(trial.params) or trial.system_attrs.get("fixed_params", {}),
        "value": trial.value if trial.state.name == "COMPLETE" else None,
        "values": {part["name"]: part["value"] for part in parts},
        "metrics": {part["name"]: part["metrics"] for part in parts},
        "state": "waiting" if abandoned else STATES[trial.state.name],
        "seconds": trial.user_attrs.get("seconds"),
        "reason": trial.user_attrs.get("reason"),
        "evaluation_losses": {str(step): abs(loss) for step, loss in trial.intermediate_values.items()},
        "attempts": len(attempts),
    }


def _best_first(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The complete trials by their value, then the others; equal ones in the order of their numbers."""
    sign = -1 if results["greater_is_better"] else 1

    def place(trial: dict[str, Any]) -> tuple[bool, float, int]:
        return trial["value"] is None, sign * (trial["value"] or 0.0), trial["trial"]

    return sorted(results["trials"], key=place)


def _trial_cells(trial: dict[str, Any], names: list[str]) -> list[str]:
    """Number, value, parameters and seconds; empty where a trial that did not end has none."""
    value = "" if trial["value"] is None else format_number(trial["value"])
    parameters = [_cell(trial["parameters"][name]) if name in trial["parameters"] else "" for name in names]
    seconds = "" if trial["seconds"] is None else f"{trial['seconds']:.1f}"
    return [str(trial["trial"]), value, *parameters, seconds]


def _report_table(results: dict[str, Any]) -> Table:
    """All trials, with what became of each."""
    names = list(results["space"])
    columns = [("Trial", ""), (METRIC_TITLES.get(results["metric"], results["metric"]), "number")]
    columns += [*((name, "") for name in names), ("Seconds", "number"), ("State", "")]
    rows = [
        [*_trial_cells(trial, names), ": ".join(filter(None, (trial["state"], trial["reason"])))]
        for trial in _best_first(results)
    ]
    return Table("Trials", "All trials, the best first: the metric is that of validation", columns, rows)


def _counts(trials: list[dict[str, Any]]) -> dict[str, int]:
    states = [trial["state"] for trial in trials]
    return {state: states.count(state) for state in dict.fromkeys(STATES.values()) if state in states}


def _summary(results: dict[str, Any]) -> list[str]:
    best = results["best"]
    counts = ", ".join(f"{count} {state}" for state, count in _counts(results["trials"]).items())
    settings = ", ".join(f"{name} {_cell(value)}" for name, value in best["parameters"].items())
    trainings = len(best["values"])
    mean = f" (mean of {trainings} trainings)" if trainings > 1 else ""
    said = [
        f"Of {len(results['trials'])} trials ({counts}), trial {best['trial']} is the best: {results['metric']} "
        f"{format_number(best['value'])}{mean} on validation with {settings}.",
        "The best of many trials is partly the luckiest: its value on validation is too good, and test rows, which no "
        "trial has seen, tell what it is worth.",
    ]
    if not results["finished"]:
        said.append("Trials are still to be run, here (the same command goes on) or by other processes that run them.")
    return said


def _all_failed(trials: list[dict[str, Any]]) -> str:
    reasons = [trial["reason"] for trial in trials if trial["state"] == "failed"]
    pruned = sum(trial["state"] == "pruned" for trial in trials)
    listed = "; ".join(f"{reasons.count(reason)} times: {reason}" for reason in dict.fromkeys(reasons))
    return (
        f"None of the {len(trials)} trials came to an end{f' ({pruned} were pruned)' if pruned else ''}. {listed}. "
        f"Change the settings or the search space and begin a study of its own (--study_name or --overwrite)."
    )


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
