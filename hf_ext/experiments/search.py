"""Search: which settings of a training do best on validation, by grid, at random or by Optuna's TPE."""

import gc
import json
import logging
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_ext.callbacks.pruning import PruningCallback
from hf_ext.checks import LEARNING, check_training_arguments
from hf_ext.configuration import build_arguments
from hf_ext.defaults import complete_search_values
from hf_ext.errors import ConfigurationError, UsageError
from hf_ext.evaluation.metrics import LESS_IS_BETTER
from hf_ext.evaluation.tables import format_number
from hf_ext.experiments.classification_run import BuiltClassifier, assemble_training, build_classifier
from hf_ext.experiments.one_of_many import one_tracked_run, without_bars
from hf_ext.experiments.rehearsing import begin_training
from hf_ext.experiments.restoring import undisturbed
from hf_ext.experiments.search_arguments import TRIALS, SearchArguments
from hf_ext.experiments.search_objective import TrainingPart, TrainOnce, evaluate_parts, failure_reason, use_folder
from hf_ext.experiments.search_queue import TrialQueue, heartbeat
from hf_ext.experiments.search_space import SearchSpace
from hf_ext.experiments.shared_storage import claim_lock, open_study, readable_storage
from hf_ext.run_record import flatten, plain_arguments
from hf_ext.secret_patterns import without_password
from hf_ext.settings import TRAINING_SETTINGS

logger = logging.getLogger(__name__)
# The folder in output_dir that trackers write to, a folder a trial.
TRIALS_FOLDER = "search_trials"
# Combinations that are tried to see whether a choice is possible at all.
ENOUGH_COMBINATIONS = 64
# What of the settings makes values that can't be compared, beside what decides how a model learns.
COMPARED = {
    "model": None,
    "textcnn": None,
    "data": ("max_seq_length", "metric_name"),
    "augmentation": None,
    "training": (*LEARNING, "eval_strategy", "eval_steps", "load_best_model_at_end", "metric_for_best_model"),
    "curriculum": None,
    "unfreezing": None,
    "learning_rates": None,
    "lr_finder": None,
    "early_stopping": None,
    "loss": None,
    "peft": None,
    "health": None,
}
PLACES = ("name", "cache_dir")


@dataclass
class Search:
    """
    A search over settings of `run_classification.py`.

    Args:
        arguments ([`SearchArguments`]): How it is searched.
        space ([`SearchSpace`]): What is varied.
        values (`dict[str, Any]`): All that was given (see [`given_values`]), of which the space replaces some.
        output_dir (`Path`): Where the study is kept, unless `storage` is given, and where trials write.
        metric (`str`): What is compared, without `eval_`.
        parts (`list[TrainingPart]`): The trainings whose mean a trial's value is.
        train_once (`Callable`): Settings, rows, a folder and callbacks -> metrics: [`train_classifier`].
    """

    arguments: SearchArguments
    space: SearchSpace
    values: dict[str, Any]
    output_dir: Path
    metric: str
    parts: list[TrainingPart]
    train_once: TrainOnce

    def __post_init__(self):
        self.grid = None
        if self.arguments.search_method == "grid":
            combinations = self.space.grid()
            order = np.random.default_rng(self.arguments.sampler_seed).permutation(len(combinations))
            self.grid = [combinations[index] for index in order]
            if (self.arguments.num_trials or 1) > len(self.grid):
                raise ConfigurationError(
                    f"num_trials is {self.arguments.num_trials}, but the grid has {len(self.grid)} combinations only. "
                    "Leave it out."
                )

    @property
    def size(self) -> int:
        """How many trials."""
        return self.arguments.num_trials or (TRIALS if self.grid is None else len(self.grid))

    @property
    def greater_is_better(self) -> bool:
        """In which direction the metric improves."""
        return self.metric not in LESS_IS_BETTER

    @property
    def storage(self) -> str:
        """Path or URL of the study."""
        return self.arguments.storage or str(self.output_dir / "study.db")

    # ---- Before anything is written ----

    def trial_values(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """All that would have been given for a trial."""
        values = dict(self.values)
        for name, value in self.space.settings(parameters).items():
            values.pop(name, None)
            if value is not None:
                values[name] = value
        return values

    def trial_settings(self, parameters: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """Section -> dataclass, of a trial."""
        values = self.trial_values(parameters) | ({} if seed is None else {"seed": seed})
        built = build_arguments(TRAINING_SETTINGS.values(), values, complete_search_values)
        return dict(zip(TRAINING_SETTINGS, built, strict=True))

    def check_values(self) -> None:
        """
        See that every choice, and both ends of every range, can be a training's.

        Raises:
            ConfigurationError: With the parameter, the value and what is wrong with it.
        """
        for parameter in self.space.parameters:
            for value in parameter.ends():
                reasons = []
                for parameters in self.space.combinations(parameter.name, value, ENOUGH_COMBINATIONS):
                    try:
                        check_training_arguments(self.trial_settings(parameters)["training"])
                        break
                    except UsageError as error:
                        reasons.append(str(error))
                else:
                    raise ConfigurationError(
                        f"search_space: {parameter.name}={value} is no setting that a trial can have: {reasons[0]}"
                    )

    def rehearse(self) -> BuiltClassifier:
        """
        Go as far as to the first step of a trial, where every technique has looked at its settings.

        Returns:
            [`BuiltClassifier`]: The model and tokenizer of that trial.

        Raises:
            UsageError: If neither the first nor the last combination gets as far.
        """
        ends = [{own.name: own.ends()[index] for own in self.space.parameters} for index in (0, -1)]
        try:
            return self._begin_trial(ends[0])
        except UsageError as error:
            with suppress(UsageError):
                return self._begin_trial(ends[1])
            raise error

    def _begin_trial(self, parameters: dict[str, Any]) -> BuiltClassifier:
        part = self.parts[0]
        settings = self.trial_settings(parameters, part.seed)
        settings["lr_finder"].find_learning_rate, settings["training"].report_to = False, []
        with tempfile.TemporaryDirectory() as folder, undisturbed():
            use_folder(settings, Path(folder) / "trial")
            built = build_classifier(settings, part.data)
            training = assemble_training(settings, built, None, plain_arguments(settings))
            begin_training(training.trainer)
            training.trainer.accelerator.free_memory()
        return built

    # ---- The study ----

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What two searches have to have in common for their trials to be compared, JSON-able."""
        arguments = plain_arguments(self.trial_settings(self.space_start()))
        varied = set(self.space.settings(self.space_start()))
        settings = {
            section: {
                name: value
                for name, value in arguments[section].items()
                if (names is None or name in names) and name not in varied and name not in PLACES
            }
            for section, names in COMPARED.items()
        }
        rows = {part.name: part.data.fingerprint() for part in self.parts if part.seed == self.parts[0].seed}
        facts = {
            "search_space": self.space.as_dict(),
            "search_method": self.arguments.search_method,
            "search_metric": self.metric,
            "pruner": self.arguments.pruner,
            "sampler_seed": self.arguments.sampler_seed,
            "seeds": sorted({part.seed for part in self.parts}),
            "folds": self.arguments.search_folds,
            "data": rows,
            "settings": settings,
        }
        return json.loads(json.dumps(facts, default=str))

    def space_start(self) -> dict[str, Any]:
        """The first value of every parameter."""
        return {own.name: own.ends()[0] for own in self.space.parameters}

    def open(self) -> TrialQueue:
        """
        The study, new or as it was left.

        Returns:
            [`TrialQueue`]

        Raises:
            ConfigurationError: If the study is of another search, or cannot be read or written.
        """
        import optuna

        pruners = {
            "none": optuna.pruners.NopPruner,
            "median": optuna.pruners.MedianPruner,
            "hyperband": optuna.pruners.HyperbandPruner,
        }
        study = open_study(
            self.storage, self.arguments.study_name, self.greater_is_better, pruners[self.arguments.pruner]()
        )
        queue = TrialQueue(
            *(study, self.size, self._sampler, lambda slot: self.grid[slot] if self.grid else {}),
            claim_lock(self.storage),
        )
        with readable_storage(self.storage):
            before, now = study.user_attrs.get("search"), self.facts
            if before is None:
                study.set_user_attr("search", now)
            elif before != now:
                raise ConfigurationError(self._difference(before, now))
            if queue.planned() > self.size:
                raise ConfigurationError(
                    f"The study {self.arguments.study_name!r} in {without_password(self.storage)} was planned for "
                    f"{queue.planned()} trials; num_trials is {self.size} now. A study can grow, not shrink: pass at "
                    "least as many, end it with --timeout_hours, or take another --study_name."
                )
        return queue

    def _sampler(self, slot: int) -> Any:
        import optuna

        seed = int(np.random.SeedSequence([self.arguments.sampler_seed, slot]).generate_state(1)[0])
        kind = optuna.samplers.TPESampler if self.arguments.search_method == "tpe" else optuna.samplers.RandomSampler
        return kind(seed=seed)

    def _difference(self, before: dict[str, Any], now: dict[str, Any]) -> str:
        then, these = flatten(before), flatten(now)
        rows = sorted(
            {name.split(".")[-1] for name in these if name.startswith("data.") and then.get(name) != these[name]}
        )
        changed = [
            f"{name.removeprefix('settings.')} ({then.get(name, 'not there')} then, {these.get(name, 'not there')} now)"
            for name in dict.fromkeys((*then, *these))
            if then.get(name) != these.get(name) and not name.startswith("data.")
        ]
        changed += [f"the rows of {' and '.join(rows)}"] if rows else []
        return (
            f"The study {self.arguments.study_name!r} in {without_password(self.storage)} is of another search: "
            f"{', '.join(changed)}. Give the same, or begin a study of its own with --study_name."
        )

    # ---- Trials ----

    def run(self, queue: TrialQueue, show_progress: bool = True) -> None:
        """
        Run trials until none is left, or the time is over.

        Args:
            queue ([`TrialQueue`]): From [`~Search.open`].
            show_progress (`bool`, *optional*, defaults to `True`): Whether to draw a bar; a line a trial is printed
                in any case.

        Raises:
            ConfigurationError: If the storage cannot be used any more.
        """
        hours, begun = self.arguments.timeout_hours, time.monotonic()
        bar = tqdm(total=self.size, disable=not show_progress, desc="trials")
        # The runs of all trials in one group.
        tracked = one_tracked_run(self.values.get("report_to") or [], self.arguments.study_name)
        with readable_storage(self.storage), without_bars(), tracked, bar:
            while hours is None or time.monotonic() - begun < 3600 * hours:
                trial = queue.claim()
                if trial is None:
                    break
                line = self._run_trial(queue, trial)
                if torch.accelerator.is_available():
                    # What a trial that ran out of memory still held. On a CPU the next training collects it.
                    gc.collect()
                    torch.accelerator.empty_cache()
                slot = trial.user_attrs["slot"] + 1
                bar.write(f"Trial {slot} of {self.size}: {line}")
                logger.info("trial %d of %d: %s", slot, self.size, line)
                bar.n = sum(attempts[-1].state.is_finished() for attempts in queue.trials().values())
                bar.refresh()
        with suppress(OSError):
            (self.output_dir / TRIALS_FOLDER).rmdir()

    def _run_trial(self, queue: TrialQueue, trial: Any) -> str:
        """Run a claimed trial; what became of it."""
        from optuna import TrialPruned

        parameters, begun = self.space.draw(trial), time.perf_counter()
        described = ", ".join(f"{name}={_short(value)}" for name, value in parameters.items())
        folder = self.output_dir / TRIALS_FOLDER / f"{trial.user_attrs['slot'] + 1:03}"
        callbacks = [PruningCallback(trial)] if self.arguments.pruner != "none" else []
        try:
            with heartbeat(trial):
                known = self._known(queue, parameters)
                value, results = known or evaluate_parts(
                    self.parts,
                    lambda seed: self._named_settings(parameters, seed, trial.user_attrs["slot"] + 1),
                    self.train_once,
                    self.metric,
                    folder,
                    callbacks,
                )
        except TrialPruned as error:
            queue.prune(trial, str(error))
            return f"pruned: {error} ({described})"
        except (KeyboardInterrupt, SystemExit):
            queue.give_back(trial)
            raise
        except Exception as error:
            reason = failure_reason(error)
            queue.fail(trial, reason or f"{type(error).__name__}: {error}")
            if reason is None:
                raise
            logger.warning("trial %d failed", trial.user_attrs["slot"] + 1, exc_info=True)
            return f"failed: {reason} ({described})"
        finally:
            with suppress(OSError):
                folder.rmdir()
        trial.set_user_attr("parts", results)
        trial.set_user_attr("seconds", round(time.perf_counter() - begun, 2))
        queue.finish(trial, value)
        return f"{self.metric} {format_number(value)} ({described})"

    def _known(self, queue: TrialQueue, parameters: dict[str, Any]) -> tuple[float, list[dict[str, Any]]] | None:
        """What an earlier trial with the same parameters was worth: another training would end in the same."""
        for attempts in queue.trials().values():
            trial = attempts[-1]
            if trial.state.name == "COMPLETE" and trial.params == parameters:
                return trial.value, trial.user_attrs["parts"]
        return None

    def _named_settings(self, parameters: dict[str, Any], seed: int, number: int) -> dict[str, Any]:
        settings = self.trial_settings(parameters, seed)
        name = self.values.get("run_name") or self.arguments.study_name
        settings["training"].run_name = f"{name}-trial-{number}"
        return settings


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
