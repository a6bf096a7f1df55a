"""hf_ext: the fine-tuning techniques that the Hugging Face Trainer lacks, as parts that compose."""

from hf_ext.arguments import (
    DataArguments,
    ExtendedTrainingArguments,
    ModelArguments,
    RawDataArguments,
    RecipeTrainingArguments,
    RunArguments,
)
from hf_ext.assembly import (
    build_model,
    build_trainer,
    find_learning_rate,
    technique_images,
    tokenize_splits,
    trainer_settings,
    write_range_test,
)
from hf_ext.callbacks import (
    CurriculumCallback,
    DiscriminativeLearningRateCallback,
    EarlyStoppingThresholdCallback,
    ExtensionCallback,
    GradientMonitorCallback,
    GradualUnfreezingCallback,
    PruningCallback,
    TrainingHintsCallback,
)
from hf_ext.callbacks.curriculum import CurriculumArguments
from hf_ext.callbacks.early_stopping import EarlyStoppingArguments
from hf_ext.callbacks.learning_rates import LearningRateArguments
from hf_ext.callbacks.monitors import MonitorArguments, training_hints
from hf_ext.callbacks.unfreezing import UnfreezingArguments
from hf_ext.checkpoints import newest_whole_checkpoint, what_is_missing
from hf_ext.checks import (
    check_same_run,
    check_training_arguments,
    check_watched_metrics,
    resume_point,
)
from hf_ext.class_weights import resolve_class_weights
from hf_ext.configuration import build_arguments, given_values, parse_arguments
from hf_ext.data.augmentation import AugmentationArguments, DataAugmenter
from hf_ext.data.augmentation.collator import AugmentingCollator
from hf_ext.data.difficulty import difficulty_scores, percentile_within_label
from hf_ext.data.duplicates import exact_duplicates, near_duplicate_pairs, near_duplicates
from hf_ext.data.folds import Fold, make_folds, row_groups
from hf_ext.data.labels import task_of_config
from hf_ext.data.loading import TextData, load_text_data
from hf_ext.data.out_of_scope import load_out_of_scope
from hf_ext.data.preflight import PreflightArguments, PreflightReport, preflight
from hf_ext.data.preprocessing import (
    PreprocessingArguments,
    PreprocessingRunArguments,
    complete_preprocessing_values,
    describe_plan,
    make_plan,
    preprocess,
    report_table,
)
from hf_ext.data.sampling import CurriculumSampler, CurriculumScheduler, LengthGroupedSampler
from hf_ext.data.splitting import stratified_group_split
from hf_ext.data.task_sampling import TaskBatchSampler
from hf_ext.data.teacher_logits import TeacherLogits, teacher_logits
from hf_ext.data.text_stream import TextCollator, TextStream, load_streamed_data, open_stream
from hf_ext.data.tokenization import tokenize_dataset
from hf_ext.data.transfer_set import TransferSet, build_transfer_set, read_unlabelled
from hf_ext.defaults import (
    complete_distillation_values,
    complete_evaluation_values,
    complete_kfold_values,
    complete_multitask_values,
    complete_range_test_values,
    complete_search_values,
    complete_training_values,
)
from hf_ext.errors import (
    ConfigurationError,
    DataError,
    PushError,
    StorageError,
    TrainingInterrupted,
    TrainingTerminated,
    UsageError,
    readable_errors,
)
from hf_ext.evaluation.calibrating import (
    CalibrationArguments,
    SavedCalibrationArguments,
    check_calibration,
    check_saved_threshold,
    fit_calibration,
)
from hf_ext.evaluation.calibration import Calibration, expected_calibration_error, fit_temperature
from hf_ext.evaluation.calibration_intervals import calibration_difference, calibration_interval
from hf_ext.evaluation.comparison import Comparison, compare_models
from hf_ext.evaluation.comparison_arguments import ComparisonArguments
from hf_ext.evaluation.comparison_run import compare_files, write_comparison
from hf_ext.evaluation.compute_metrics import build_compute_metrics
from hf_ext.evaluation.equivalence import detectable_difference, paired_equivalence
from hf_ext.evaluation.model_card import write_model_card
from hf_ext.evaluation.out_of_scope import answer_scores, tune_out_of_scope
from hf_ext.evaluation.over_folds import FoldSummary, folds_table, summarize_folds
from hf_ext.evaluation.permutation import paired_permutation
from hf_ext.evaluation.prediction_files import read_predictions
from hf_ext.evaluation.predictions import Predictions
from hf_ext.evaluation.report import Supplements, write_report
from hf_ext.evaluation.significance import (
    bootstrap_intervals,
    exact_mcnemar,
    holm,
    metric_intervals,
    paired_bootstrap,
)
from hf_ext.evaluation.speed import compare_speed, model_cost
from hf_ext.evaluation.t_test import paired_t_test
from hf_ext.evaluation.tables import results_table
from hf_ext.evaluation.thresholds import decide, tune_thresholds
from hf_ext.experiments.before_distillation import check_folders, check_teacher, rehearse, untrained_teacher
from hf_ext.experiments.cartography import DataMap, cartography_scores
from hf_ext.experiments.classification_run import (
    BuiltClassifier,
    ClassifierTraining,
    assemble_training,
    build_classifier,
)
from hf_ext.experiments.cross_review import cross_review_scores
from hf_ext.experiments.cross_validation import (
    CrossValidation,
    describe_folds,
    plan_folds,
    remove_unfinished,
)
from hf_ext.experiments.distillation_results import (
    compare_distillation,
    predict_with,
    teacher_predictions,
    write_distillation,
)
from hf_ext.experiments.distillation_run import (
    build_student_trainer,
    fine_tune_teacher,
    label_transfer_set,
    load_teachers,
    make_transfer_set,
    start_embeddings_from_teacher,
    teacher_is_ready,
    train_control,
    train_student,
    with_rows,
)
from hf_ext.experiments.fold_lists import OwnFolds, SharedFolds
from hf_ext.experiments.fold_training import rehearse_fold, train_fold
from hf_ext.experiments.fold_workers import train_here, train_in_workers
from hf_ext.experiments.kfold_arguments import KFoldArguments
from hf_ext.experiments.kfold_plan import begin_plan, check_kfold_dir, check_same_plan, make_fold_plan
from hf_ext.experiments.kfold_results import write_kfold
from hf_ext.experiments.loaded_tasks import (
    build_task_models,
    check_tasks,
    check_watched_tasks,
    load_tasks,
    tasks_fingerprint,
)
from hf_ext.experiments.lr_finder import LRFinder, LRFinderArguments, NoUsableSlopeError
from hf_ext.experiments.multitask_results import save_task_metrics, write_multitask
from hf_ext.experiments.multitask_run import build_multitask_trainer, check_task_folders, export_tasks, train_tasks
from hf_ext.experiments.search import Search
from hf_ext.experiments.search_arguments import SearchArguments
from hf_ext.experiments.search_checks import check_launch, held_search, searched_columns, searched_metric
from hf_ext.experiments.search_objective import TrainingPart, evaluate_parts, train_classifier, training_parts
from hf_ext.experiments.search_queue import TrialQueue
from hf_ext.experiments.search_results import write_search
from hf_ext.experiments.search_space import SearchSpace, read_search_space
from hf_ext.experiments.shared_storage import open_storage, open_study, require_optuna
from hf_ext.experiments.single_task_baselines import compare_tasks, rehearse_tasks, train_baselines
from hf_ext.experiments.teacher_and_control import TeacherArguments
from hf_ext.export.arguments import ExportArguments, complete_export_values
from hf_ext.export.export_results import write_export
from hf_ext.export.export_run import ExportResult, export_model, load_to_export, published_folder
from hf_ext.export.exported_model import ExportedModel
from hf_ext.export.graphs import export_onnx, export_torch
from hf_ext.export.parity import Parity, compare_exports
from hf_ext.export.quantization import Quantization, quantize_onnx
from hf_ext.hub.known_rows import known_rows
from hf_ext.hub.plan import PushFinding, PushPlan, plan_push
from hf_ext.hub.push import HubTarget, check_target, push_folder, take_target
from hf_ext.hub.push_arguments import PushArguments
from hf_ext.inspection import (
    gradient_facts,
    gradient_norms,
    gradient_table,
    model_summary,
    parameter_counts,
    weights_digest,
)
from hf_ext.launching import check_joined, check_same_data, check_shared, require_alone, wait_for_everyone
from hf_ext.layers import freeze_parameters, layer_groups, unfreeze_parameters
from hf_ext.losses import distillation_loss, hard_target_loss, hidden_state_loss, soft_target_loss
from hf_ext.lost_process import LostProcessError
from hf_ext.lr_schedules import get_cyclical_triangular_schedule, get_slanted_triangular_schedule
from hf_ext.models import TextCNNConfig, TextCNNForSequenceClassification
from hf_ext.models.adapters import add_adapter, merge_adapter
from hf_ext.models.building import TextCNNArguments, build_textcnn, load_classifier, load_config, load_pretrained
from hf_ext.models.calibrated import find_calibration, load_pipeline
from hf_ext.models.multitask import MultiTaskConfig, MultiTaskModel
from hf_ext.models.peft_arguments import PeftArguments
from hf_ext.models.teacher import Teacher
from hf_ext.models.teacher_embeddings import teacher_word_vectors
from hf_ext.models.word_tokenizer import build_word_tokenizer, load_word_vectors
from hf_ext.optimizers import SparseAdamW
from hf_ext.output_dir import StartOfRun, check_output_dir, clear_output_dir, open_output_dir
from hf_ext.preparation import augment_training_rows, check_data, curriculum_callbacks
from hf_ext.repeating import repeat_notes
from hf_ext.results import (
    calibrate_model,
    calibration_notes,
    predict_splits,
    print_notes,
    show_dry_run,
    with_scores,
    write_preflight,
    write_results,
)
from hf_ext.run_lock import lock_folder, own_folders
from hf_ext.run_record import RunRecord
from hf_ext.secret_patterns import without_password
from hf_ext.settings import (
    ALL_SETTINGS,
    DISTILLATION_SETTINGS,
    KFOLD_SETTINGS,
    MULTITASK_SETTINGS,
    SEARCH_SETTINGS,
    TRAINING_SETTINGS,
    parse_settings,
)
from hf_ext.tracker_guard import guard_trackers
from hf_ext.tracking import TrackingArguments, has_wandb_login
from hf_ext.trainers import ExtendedTrainer
from hf_ext.trainers.class_loss import ClassLoss, LossArguments
from hf_ext.trainers.distillation import DistillationTrainer
from hf_ext.trainers.distillation_arguments import DistillationArguments
from hf_ext.trainers.multitask import MultiTaskTrainer
from hf_ext.trainers.multitask_arguments import MultiTaskArguments, TaskArguments
from hf_ext.trainers.nonfinite import NonFiniteArguments, NonFiniteError
from hf_ext.training_log import start_training_log
from hf_ext.version import __version__

__all__ = [
    "ALL_SETTINGS",
    "DISTILLATION_SETTINGS",
    "KFOLD_SETTINGS",
    "MULTITASK_SETTINGS",
    "SEARCH_SETTINGS",
    "TRAINING_SETTINGS",
    "AugmentationArguments",
    "AugmentingCollator",
    "BuiltClassifier",
    "Calibration",
    "CalibrationArguments",
    "ClassLoss",
    "ClassifierTraining",
    "Comparison",
    "ComparisonArguments",
    "ConfigurationError",
    "CrossValidation",
    "CurriculumArguments",
    "CurriculumCallback",
    "CurriculumSampler",
    "CurriculumScheduler",
    "DataArguments",
    "DataAugmenter",
    "DataError",
    "DataMap",
    "DiscriminativeLearningRateCallback",
    "DistillationArguments",
    "DistillationTrainer",
    "EarlyStoppingArguments",
    "EarlyStoppingThresholdCallback",
    "ExportArguments",
    "ExportResult",
    "ExportedModel",
    "ExtendedTrainer",
    "ExtendedTrainingArguments",
    "ExtensionCallback",
    "Fold",
    "FoldSummary",
    "GradientMonitorCallback",
    "GradualUnfreezingCallback",
    "HubTarget",
    "KFoldArguments",
    "LRFinder",
    "LRFinderArguments",
    "LearningRateArguments",
    "LengthGroupedSampler",
    "LossArguments",
    "LostProcessError",
    "ModelArguments",
    "MonitorArguments",
    "MultiTaskArguments",
    "MultiTaskConfig",
    "MultiTaskModel",
    "MultiTaskTrainer",
    "NoUsableSlopeError",
    "NonFiniteArguments",
    "NonFiniteError",
    "OwnFolds",
    "Parity",
    "PeftArguments",
    "Predictions",
    "PreflightArguments",
    "PreflightReport",
    "PreprocessingArguments",
    "PreprocessingRunArguments",
    "PruningCallback",
    "PushArguments",
    "PushError",
    "PushFinding",
    "PushPlan",
    "Quantization",
    "RawDataArguments",
    "RecipeTrainingArguments",
    "RunArguments",
    "RunRecord",
    "SavedCalibrationArguments",
    "Search",
    "SearchArguments",
    "SearchSpace",
    "SharedFolds",
    "SparseAdamW",
    "StartOfRun",
    "StorageError",
    "Supplements",
    "TaskArguments",
    "TaskBatchSampler",
    "Teacher",
    "TeacherArguments",
    "TeacherLogits",
    "TextCNNArguments",
    "TextCNNConfig",
    "TextCNNForSequenceClassification",
    "TextCollator",
    "TextData",
    "TextStream",
    "TrackingArguments",
    "TrainingHintsCallback",
    "TrainingInterrupted",
    "TrainingPart",
    "TrainingTerminated",
    "TransferSet",
    "TrialQueue",
    "UnfreezingArguments",
    "UsageError",
    "__version__",
    "add_adapter",
    "answer_scores",
    "assemble_training",
    "augment_training_rows",
    "begin_plan",
    "bootstrap_intervals",
    "build_arguments",
    "build_classifier",
    "build_compute_metrics",
    "build_model",
    "build_multitask_trainer",
    "build_student_trainer",
    "build_task_models",
    "build_textcnn",
    "build_trainer",
    "build_transfer_set",
    "build_word_tokenizer",
    "calibrate_model",
    "calibration_difference",
    "calibration_interval",
    "calibration_notes",
    "cartography_scores",
    "check_calibration",
    "check_data",
    "check_folders",
    "check_joined",
    "check_kfold_dir",
    "check_launch",
    "check_output_dir",
    "check_same_data",
    "check_same_plan",
    "check_same_run",
    "check_saved_threshold",
    "check_shared",
    "check_target",
    "check_task_folders",
    "check_tasks",
    "check_teacher",
    "check_training_arguments",
    "check_watched_metrics",
    "check_watched_tasks",
    "clear_output_dir",
    "compare_distillation",
    "compare_exports",
    "compare_files",
    "compare_models",
    "compare_speed",
    "compare_tasks",
    "complete_distillation_values",
    "complete_evaluation_values",
    "complete_export_values",
    "complete_kfold_values",
    "complete_multitask_values",
    "complete_preprocessing_values",
    "complete_range_test_values",
    "complete_search_values",
    "complete_training_values",
    "cross_review_scores",
    "curriculum_callbacks",
    "decide",
    "describe_folds",
    "describe_plan",
    "detectable_difference",
    "difficulty_scores",
    "distillation_loss",
    "evaluate_parts",
    "exact_duplicates",
    "exact_mcnemar",
    "expected_calibration_error",
    "export_model",
    "export_onnx",
    "export_tasks",
    "export_torch",
    "find_calibration",
    "find_learning_rate",
    "fine_tune_teacher",
    "fit_calibration",
    "fit_temperature",
    "folds_table",
    "freeze_parameters",
    "get_cyclical_triangular_schedule",
    "get_slanted_triangular_schedule",
    "given_values",
    "gradient_facts",
    "gradient_norms",
    "gradient_table",
    "guard_trackers",
    "hard_target_loss",
    "has_wandb_login",
    "held_search",
    "hidden_state_loss",
    "holm",
    "known_rows",
    "label_transfer_set",
    "layer_groups",
    "load_classifier",
    "load_config",
    "load_out_of_scope",
    "load_pipeline",
    "load_pretrained",
    "load_streamed_data",
    "load_tasks",
    "load_teachers",
    "load_text_data",
    "load_to_export",
    "load_word_vectors",
    "lock_folder",
    "make_fold_plan",
    "make_folds",
    "make_plan",
    "make_transfer_set",
    "merge_adapter",
    "metric_intervals",
    "model_cost",
    "model_summary",
    "near_duplicate_pairs",
    "near_duplicates",
    "newest_whole_checkpoint",
    "open_output_dir",
    "open_storage",
    "open_stream",
    "open_study",
    "own_folders",
    "paired_bootstrap",
    "paired_equivalence",
    "paired_permutation",
    "paired_t_test",
    "parameter_counts",
    "parse_arguments",
    "parse_settings",
    "percentile_within_label",
    "plan_folds",
    "plan_push",
    "predict_splits",
    "predict_with",
    "preflight",
    "preprocess",
    "print_notes",
    "published_folder",
    "push_folder",
    "quantize_onnx",
    "read_predictions",
    "read_search_space",
    "read_unlabelled",
    "readable_errors",
    "rehearse",
    "rehearse_fold",
    "rehearse_tasks",
    "remove_unfinished",
    "repeat_notes",
    "report_table",
    "require_alone",
    "require_optuna",
    "resolve_class_weights",
    "results_table",
    "resume_point",
    "row_groups",
    "save_task_metrics",
    "searched_columns",
    "searched_metric",
    "show_dry_run",
    "soft_target_loss",
    "start_embeddings_from_teacher",
    "start_training_log",
    "stratified_group_split",
    "summarize_folds",
    "take_target",
    "task_of_config",
    "tasks_fingerprint",
    "teacher_is_ready",
    "teacher_logits",
    "teacher_predictions",
    "teacher_word_vectors",
    "technique_images",
    "tokenize_dataset",
    "tokenize_splits",
    "train_baselines",
    "train_classifier",
    "train_control",
    "train_fold",
    "train_here",
    "train_in_workers",
    "train_student",
    "train_tasks",
    "trainer_settings",
    "training_hints",
    "training_parts",
    "tune_out_of_scope",
    "tune_thresholds",
    "unfreeze_parameters",
    "untrained_teacher",
    "wait_for_everyone",
    "weights_digest",
    "what_is_missing",
    "with_rows",
    "with_scores",
    "without_password",
    "write_comparison",
    "write_distillation",
    "write_export",
    "write_kfold",
    "write_model_card",
    "write_multitask",
    "write_preflight",
    "write_range_test",
    "write_report",
    "write_results",
    "write_search",
]
