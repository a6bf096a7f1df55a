"""What a run on several tasks leaves besides its models: results a task, one report, and what was transferred."""

import copy
from pathlib import Path
from typing import Any

from hf_ext.data.preflight import PreflightReport
from hf_ext.evaluation.averages import average_over_tasks
from hf_ext.evaluation.comparison import Comparison
from hf_ext.evaluation.model_card import write_model_card
from hf_ext.evaluation.predictions import Predictions, class_notes
from hf_ext.evaluation.report import Supplements, write_report
from hf_ext.evaluation.significance import metric_intervals
from hf_ext.evaluation.tables import results_table
from hf_ext.experiments.loaded_tasks import LoadedTask
from hf_ext.experiments.multitask_run import TASKS, TaskResults
from hf_ext.experiments.single_task_baselines import MULTI, SINGLE, compare_tasks, task_steps, transfer_sentence
from hf_ext.files import write_json
from hf_ext.results import PREFIXES
from hf_ext.run_record import RunRecord
from hf_ext.trainers.multitask import MultiTaskTrainer

USAGE = (
    "Each task is a plain model in a folder of its own:",
    "",
    "```python",
    "from transformers import pipeline",
    'classifier = pipeline("text-classification", model="path/to/this/folder/tasks/{task}", trust_remote_code=True)',
    "```",
    "",
    "All of them at once, to train on: `hf_ext.MultiTaskModel.from_pretrained`.",
)


def save_task_metrics(trainer: MultiTaskTrainer, results: TaskResults) -> None:
    """
    Write `{eval,test}_results.json` and `all_results.json`: `eval_<task>_<metric>` and `eval_avg_<metric>`.

    Args:
        trainer ([`MultiTaskTrainer`]): The run's.
        results (`dict`): Task -> predictions and metrics.
    """
    for split, prefix in PREFIXES.items():
        labelled = {
            task: metrics[split]
            for task, (predictions, metrics) in results.items()
            if split in predictions and predictions[split].labels is not None
        }
        found = {f"{prefix}_{task}_{name}": value for task, own in labelled.items() for name, value in own.items()}
        if labelled:
            averages = average_over_tasks(labelled, trainer.problem_types)
            found |= {f"{prefix}_avg_{name}": value for name, value in averages.items()}
        for task, (predictions, _) in results.items():
            if split in predictions:
                found[f"{prefix}_{task}_samples"] = len(predictions[split].texts)
        if found:
            trainer.save_metrics(prefix, found)


def write_multitask(
    output_dir: Path,
    settings: dict[str, Any],
    tasks: dict[str, LoadedTask],
    trainer: MultiTaskTrainer,
    together: TaskResults,
    alone: TaskResults,
    record: RunRecord,
    notes: list[str],
    findings: PreflightReport | None,
) -> None:
    """
    Compare the tasks' models with their baselines; write each task's predictions and card, `multitask.json`, the
    report, the card of the whole and `run.json`, and print the results.

    Args:
        output_dir (`Path`): The run's folder.
        settings (`dict[str, Any]`): Section -> dataclass.
        tasks (`dict[str, LoadedTask]`): The tasks.
        trainer ([`MultiTaskTrainer`]): After training.
        together, alone (`dict`): Task -> predictions and metrics of the multi-task model, and of the baselines.
        record ([`RunRecord`]): The run's facts.
        notes (`list[str]`): What a reader has to know.
        findings ([`PreflightReport`], *optional*): From [`check_tasks`].
    """
    comparisons = compare_tasks(together, alone)
    sentences = [transfer_sentence(task, split, compared) for task, (split, compared) in comparisons.items()]
    intervals = {task: _intervals(predictions) for task, (predictions, _) in together.items()}
    model_args, run = settings["model"], record.as_dict()
    base = model_args.model_name_or_path
    title = f"{model_args.name or base or 'TextCNN'} on {', '.join(tasks)}"
    for name, (predictions, metrics) in together.items():
        folder = output_dir / TASKS / name
        for split, items in predictions.items():
            items.to_jsonl(folder / f"predictions_{split}.jsonl")
        write_model_card(
            folder / "README.md",
            title=f"{title}: {name}",
            base_model=base,
            metrics={split: metrics[split] for split in intervals[name]},
            intervals=intervals[name],
            run=_run_of_task(run, name, tasks[name]),
            notes=[note for note in notes if not _is_of_another_task(note, name, tasks)],
            splits=predictions,
        )
    write_json(output_dir / "multitask.json", _facts(tasks, trainer, together, alone, comparisons))
    splits, metrics, bounds = {}, {}, {}
    for name, (predictions, values) in together.items():
        splits |= {f"{name} {split}": items for split, items in predictions.items()}
        metrics |= {f"{name} {split}": values[split] for split in intervals[name]}
        bounds |= {f"{name} {split}": found for split, found in intervals[name].items()}
    notes = [*sentences, *notes, *class_notes(splits)]
    common = {"title": title, "metrics": metrics, "intervals": bounds, "notes": notes}
    report = write_report(
        output_dir / "report.html",
        splits=splits,
        history=trainer.state.log_history,
        run=run,
        supplements=Supplements(
            preflight=findings.as_dict() if findings else None,
            comparisons={f"{name} {split}": compared for name, (split, compared) in comparisons.items()},
        ),
        **common,
    )
    usage = [line.format(task=next(iter(tasks))) for line in USAGE]
    write_model_card(output_dir / "README.md", base_model=base, run=_run_of_all(run), usage=usage, **common)
    record.add(results=metrics, intervals=bounds, notes=common["notes"])
    record.write(output_dir)
    if metrics:
        print(f"\n{results_table(metrics, bounds)}")
    if sentences:
        print("\n" + "\n".join(sentences))
    print(f"\nReport: {report}")


# ---- Inside ----


def _intervals(predictions: dict[str, Predictions]) -> dict[str, dict[str, tuple[float, float]]]:
    return {split: metric_intervals(items) for split, items in predictions.items() if items.labels is not None}


def _facts(
    tasks: dict[str, LoadedTask],
    trainer: MultiTaskTrainer,
    together: TaskResults,
    alone: TaskResults,
    comparisons: dict[str, tuple[str, Comparison]],
) -> dict[str, Any]:
    """The content of `multitask.json`."""
    steps = task_steps(trainer, trainer.state.global_step)
    facts = {}
    for name, task in tasks.items():
        own = {
            "problem_type": task.problem_type,
            "training_rows": len(task.data.splits["train"]),
            "weight": task.args.weight,
            "steps": steps[name],
            "metrics": {MULTI: together[name][1]},
        }
        if name in alone:
            own["metrics"][SINGLE] = alone[name][1]
        if name in comparisons:
            split, compared = comparisons[name]
            (pair,) = compared.pairs
            own["transfer"] = {
                "split": split,
                "metric": pair.metric,
                **pair.differences[pair.metric]._asdict(),
                "p": pair.p,
                "test": pair.test,
                "sentence": transfer_sentence(name, split, compared),
            }
            own["comparison"] = compared.as_dict()
        facts[name] = own
    return {
        "steps": trainer.state.global_step,
        "share_encoder": trainer.model.config.share_encoder,
        "parameters": trainer.model.num_parameters(),
        "tasks": facts,
    }


def _run_of_task(run: dict[str, Any], name: str, task: LoadedTask) -> dict[str, Any]:
    """The run's facts with the task's data in place of all tasks'."""
    run = _run_of_all(run)
    run["arguments"]["data"] = vars(task.args)
    digests = {split: found for split, found in run["data"].items() if isinstance(found, dict)}
    run["data"] = {split: found[name] for split, found in digests.items() if name in found}
    return run


def _run_of_all(run: dict[str, Any]) -> dict[str, Any]:
    """The run's facts without what differs between the tasks."""
    run = copy.deepcopy(run)
    run["arguments"]["multitask"].pop("tasks")
    run["arguments"].pop("data")
    return run


def _is_of_another_task(note: str, task: str, tasks: dict[str, LoadedTask]) -> bool:
    return any(note.startswith(f"{other}: ") for other in tasks if other != task)
