"""Several tasks that are evaluated and predicted one after another, each by metrics of its own."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import ProgressCallback
from transformers.trainer_utils import PredictionOutput, speed_metrics

from hf_ext.data.task_data import TaskDataset, check_rows, is_labelled
from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.averages import average_over_tasks
from hf_ext.trainers.base import ExtendedTrainer
from hf_ext.trainers.task_inputs import check_known


class TaskEvaluationTrainer(ExtendedTrainer):
    """
    The part of [`MultiTaskTrainer`] that evaluates and predicts.

    Attributes:
        tasks (`list[str]`): Names of the tasks; their places are their ids.
        problem_types (`dict[str, str]`): Task -> its kind.
        task_compute_metrics (`dict[str, Callable]`): Task -> its metrics.
    """

    tasks: list[str]
    problem_types: dict[str, str]
    task_compute_metrics: dict[str, Callable]
    # Task -> the columns that its model and its collator take.
    _columns: dict[str, set[str]]
    _keeps_columns: bool

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """
        Evaluate all tasks.

        Args:
            eval_dataset (`Mapping[str, Dataset]`, *optional*):
                Task -> rows; by default each task's own.
            ignore_keys (`list[str]`, *optional*):
                As the Trainer's.
            metric_key_prefix (`str`, *optional*, defaults to `"eval"`):
                What the names of the metrics begin with.

        Returns:
            `dict[str, float]`: Of each task `eval_<task>_<metric>` and `eval_<task>_loss` (as it is, without weights);
            `eval_avg_<metric>`, the mean over the tasks, for every metric that all have, and `eval_avg_loss` (also
            as `eval_loss`); `eval_avg_score`, the mean of each task's main metric (accuracy, micro F1 of several
            labels, Spearman's correlation of numbers).
        """
        parts = self.eval_dataset if eval_dataset is None else self._wrapped(eval_dataset)
        if not parts:
            raise ConfigurationError("There is nothing to evaluate on: pass eval_datasets, or splits with validation.")
        self._memory_tracker.start()
        metrics, by_task, start, rows = {}, {}, time.time(), 0
        for task, part in parts.items():
            loader = self.get_eval_dataloader(task if eval_dataset is None else part)
            with self._metrics_of(task):
                output = self.evaluation_loop(loader, "Evaluation", None, ignore_keys, f"{metric_key_prefix}_{task}")
            preparation = output.metrics.pop(f"{metric_key_prefix}_{task}_model_preparation_time", 0.0)
            start, rows = start + preparation, rows + output.num_samples
            prefix = f"{metric_key_prefix}_{task}_"
            by_task[task] = {name.removeprefix(prefix): value for name, value in output.metrics.items()}
            metrics.update(output.metrics)
            self._end_progress_bar()
        averages = average_over_tasks(by_task, self.problem_types)
        metrics.update({f"{metric_key_prefix}_avg_{name}": value for name, value in averages.items()})
        if "loss" in averages:
            metrics[f"{metric_key_prefix}_loss"] = averages["loss"]
        steps = math.ceil(rows / (self.args.eval_batch_size * self.args.world_size))
        metrics.update(speed_metrics(metric_key_prefix, start, num_samples=rows, num_steps=steps))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._memory_tracker.stop_and_update_metrics(metrics)
        return metrics

    def predict(self, task, test_dataset=None, ignore_keys=None, metric_key_prefix="test") -> PredictionOutput:
        """
        Predict the rows of one task.

        Args:
            task (`str`): Name of the task.
            test_dataset (`Dataset`, *optional*): Its rows, labelled or not; by default those it is evaluated on.
            ignore_keys (`list[str]`, *optional*): As the Trainer's.
            metric_key_prefix (`str`, *optional*, defaults to `"test"`): What the names of the metrics begin with.

        Returns:
            [`~transformers.trainer_utils.PredictionOutput`]: Logits, labels and metrics.
        """
        check_known("predict", [task], self.tasks)
        if test_dataset is None and task not in (self.eval_dataset or {}):
            raise ConfigurationError(f"The task {task!r} has no validation rows: pass test_dataset.")
        part = self.eval_dataset[task] if test_dataset is None else self._wrapped({task: test_dataset})[task]
        with self._metrics_of(task):
            return super().predict(part, ignore_keys, metric_key_prefix)

    # ---- Inside ----

    def _task_dataset(self, rows: Mapping[str, Any]) -> TaskDataset:
        ids = {self.tasks.index(task): of_task for task, of_task in rows.items()}
        used = {number: self._columns[self.tasks[number]] for number in ids}
        return TaskDataset(ids, None if self._keeps_columns else used)

    @contextmanager
    def _metrics_of(self, task: str) -> Iterator[None]:
        before, self.compute_metrics = self.compute_metrics, self.task_compute_metrics[task]
        try:
            yield
        finally:
            self.compute_metrics = before

    def _wrapped(self, datasets: Mapping[str, Any]) -> dict[str, TaskDataset]:
        if not isinstance(datasets, Mapping):
            raise ConfigurationError("Rows to evaluate on must come as a mapping of tasks to rows.")
        check_known("eval_dataset", datasets, self.tasks)
        for task, rows in datasets.items():
            config = self.model.task_model(task).config
            kind = config.problem_type if len(rows) and is_labelled(rows) else None
            check_rows(task, "evaluation", rows, kind, config.num_labels)
        return {task: self._task_dataset({task: rows}) for task, rows in datasets.items()}

    def _end_progress_bar(self) -> None:
        # One bar a task; the event that ends it comes after all of them.
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ProgressCallback) and callback.prediction_bar is not None:
                callback.prediction_bar.close()
                callback.prediction_bar = None
