"""The house: every module stands on a layer, and imports downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Layer 0 holds pure functions without transformers; layer 5 are the recipes.
CONFIGURATION = ("command_line", "field_types", "files", "merging", "names")
AUGMENTATION = (
    "arguments",
    "augmenter",
    "backends",
    "checks",
    "function_words",
    "synonyms",
    "text_edits",
    "word_spans",
)
DEFAULTS = (
    "distillation",
    "evaluation",
    "kfold",
    "machine",
    "multitask",
    "range_test",
    "search",
    "streaming",
    "training",
    "whole_run",
)
PREFLIGHT = ("duplicates", "inspection", "labels", "report", "rows", "texts", "tokens")
PREPROCESSING = (
    "cleaning",
    "data_report",
    "pipeline",
    "plan",
    "publishing",
    "selecting",
    "sources",
    "split_files",
    "stages",
    "unifying",
)
LAYERS = {
    "version": 0,
    "errors": 0,
    "finite": 0,
    "problem_types": 0,
    "files": 0,
    "lost_process": 0,
    "launching": 0,
    "secret_patterns": 0,
    "pickles": 0,
    "schedules": 0,
    "evaluation.predictions": 0,
    "evaluation.metrics": 0,
    "evaluation.modules": 0,
    "evaluation.compute_metrics": 0,
    "evaluation.calibration": 0,
    "evaluation.calibrating": 0,
    "evaluation.thresholds": 0,
    "evaluation.out_of_scope": 0,
    "evaluation.calibration_intervals": 0,
    "evaluation.significance": 0,
    "evaluation.same_rows": 0,
    "evaluation.comparison": 0,
    "evaluation.equivalence": 0,
    "evaluation.metric_sums": 0,
    "evaluation.pairs": 0,
    "evaluation.permutation": 0,
    "evaluation.prediction_files": 0,
    "evaluation.score_files": 0,
    "evaluation.t_test": 0,
    "evaluation.comparison_arguments": 0,
    "evaluation.comparison_figures": 0,
    "evaluation.comparison_run": 1,
    "evaluation.groups": 1,
    "evaluation.speed": 1,
    "lr_schedules": 1,
    "arguments": 1,
    **{f"configuration.{name}": 1 for name in CONFIGURATION},
    "configuration": 1,
    **{f"defaults.{name}": 1 for name in DEFAULTS},
    "defaults": 1,
    "precision": 1,
    "compilation": 1,
    "inspection": 1,
    "layers": 1,
    "optimizers": 1,
    "run_record": 1,
    "output_dir": 1,
    "training_log": 1,
    "run_lock": 1,
    "repeated_run": 1,
    "repeating": 1,
    "checkpoints": 1,
    "tracker_guard": 1,
    "tracking": 1,
    "data.streaming": 1,
    "data.text_stream": 1,
    "data.reading": 1,
    "data.labels": 1,
    "data.folds": 1,
    "data.holding_out": 1,
    "data.columns": 1,
    "data.split_tables": 1,
    "data.loading": 1,
    "data.tokenization": 1,
    "data.sampling": 1,
    "data.difficulty": 1,
    "data.text_columns": 1,
    "data.minhash": 1,
    "data.duplicates": 1,
    "data.splitting": 1,
    **{f"data.augmentation.{name}": 0 for name in AUGMENTATION},
    "data.augmentation": 0,
    "data.augmentation.collator": 1,
    **{f"data.preflight.{name}": 1 for name in PREFLIGHT},
    "data.preflight": 1,
    **{f"data.preprocessing.{name}": 1 for name in PREPROCESSING},
    "data.preprocessing": 1,
    "models": 1,
    "models.configuration_textcnn": 1,
    "models.modeling_textcnn": 1,
    "models.freezing": 1,
    "models.word_tokenizer": 1,
    "models.sentence_convolution": 1,
    "models.adapters": 1,
    "models.adapter_files": 1,
    "models.peft_arguments": 1,
    "models.building": 1,
    "models.calibrated": 1,
    "models.calibrated_pipeline": 1,
    "evaluation.tables": 0,
    "evaluation.figure_layout": 0,
    "evaluation.figures": 0,
    "evaluation.curves": 0,
    "evaluation.curve_figures": 0,
    "evaluation.class_scores": 0,
    "evaluation.split_views": 0,
    "evaluation.run_cost": 0,
    "evaluation.pages": 0,
    "evaluation.over_folds": 0,
    "evaluation.model_card": 1,
    "hub.quoted_rows": 0,
    "hub.known_rows": 1,
    "hub.model_files": 1,
    "hub.plan": 1,
    "hub.push": 1,
    "hub.push_arguments": 1,
    "evaluation.report": 1,
    "callbacks.base": 1,
    "callbacks.curriculum": 2,
    "callbacks.learning_rates": 2,
    "callbacks.unfreezing": 2,
    "callbacks.early_stopping": 2,
    "callbacks.monitors": 2,
    "callbacks.pruning": 2,
    "callbacks": 2,
    "losses": 0,
    "class_weights": 0,
    "models.teacher": 1,
    "models.teacher_members": 1,
    "models.teacher_embeddings": 1,
    "models.hidden_states": 1,
    "data.teacher_logits": 1,
    "data.logits_cache": 1,
    "data.transfer_set": 1,
    "data.out_of_scope": 1,
    "data.distillation_collator": 1,
    "task_weighting": 0,
    "evaluation.averages": 0,
    "data.task_sampling": 1,
    "data.task_data": 1,
    "models.sharing": 1,
    "models.multitask": 1,
    "trainers.task_inputs": 3,
    "trainers.task_losses": 3,
    "trainers.task_evaluation": 3,
    "trainers.multitask": 3,
    "trainers.multitask_arguments": 3,
    "trainers.techniques": 3,
    "trainers.base": 3,
    "trainers.batch_parts": 3,
    "trainers.batch_rows": 3,
    "trainers.nonfinite": 3,
    "trainers.launched": 3,
    "trainers.parameter_groups": 3,
    "trainers.rank_rows": 3,
    "trainers.interrupts": 3,
    "trainers.resumable": 3,
    "trainers.safe": 3,
    "trainers.step_statistics": 3,
    "trainers.class_loss": 3,
    "trainers.merging": 3,
    "trainers.pushing": 3,
    "trainers.distillation": 3,
    "trainers.distillation_checks": 3,
    "trainers.distillation_arguments": 3,
    "trainers": 3,
    "checks": 3,
    "results": 3,
    "experiments.classification_run": 4,
    "experiments.kfold_arguments": 4,
    "experiments.cross_validation": 4,
    "experiments.fold_lists": 4,
    "experiments.fold_training": 4,
    "experiments.fold_workers": 4,
    "experiments.kfold_plan": 4,
    "experiments.kfold_results": 4,
    "experiments.one_of_many": 4,
    "experiments.lr_range": 4,
    "experiments.restoring": 4,
    "experiments.lr_loop": 4,
    "experiments.lr_probe": 4,
    "experiments.lr_finder": 4,
    "experiments.cross_review": 4,
    "experiments.cartography": 4,
    "experiments.before_distillation": 4,
    "experiments.rehearsing": 4,
    "experiments.trained_parts": 4,
    "experiments.teacher_and_control": 4,
    "experiments.distillation_run": 4,
    "experiments.distillation_results": 4,
    "experiments.loaded_tasks": 4,
    "experiments.multitask_run": 4,
    "experiments.single_task_baselines": 4,
    "experiments.multitask_results": 4,
    "experiments.search": 4,
    "experiments.search_arguments": 4,
    "experiments.search_checks": 4,
    "experiments.search_objective": 4,
    "experiments.search_queue": 4,
    "experiments.search_results": 4,
    "experiments.search_space": 4,
    "experiments.shared_storage": 4,
    "export.arguments": 1,
    "export.graphs": 1,
    "export.exported_model": 3,
    "export.quantization": 3,
    "export.parity": 3,
    "export.export_run": 4,
    "export.export_results": 4,
    "preparation": 4,
    "settings": 4,
    "assembly": 4,
}
# Packages that only hold their modules.
EMPTY = {"data", "evaluation", "experiments", "export", "hub"}
RECIPES = sorted((ROOT / "recipes").glob("*.py"))


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT / "hf_ext").with_suffix("").parts)
    return name.removesuffix(".__init__") if name != "__init__" else ""


MODULES = {module_name(path): path for path in (ROOT / "hf_ext").rglob("*.py")}


def imported(path: Path, package: str = "") -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(f"hf_ext.{package}.{node.module}" if node.level else node.module)
    return names


def test_every_module_has_a_layer():
    assert set(MODULES) - {""} - EMPTY == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_go_downwards(name):
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for target in imported(path, package):
        if target == "hf_ext" or target.startswith("hf_ext."):
            assert target != "hf_ext", f"{name} imports the public API, which stands above it"
            below = target.removeprefix("hf_ext.")
            assert LAYERS[below] <= LAYERS[name], (
                f"{name} (layer {LAYERS[name]}) imports {below} (layer {LAYERS[below]})"
            )
        elif LAYERS[name] == 0:
            assert target.split(".")[0] != "transformers", f"{name} is pure and imports {target}"


def test_recipes_use_the_public_api_only():
    assert [path.stem for path in RECIPES] == [
        "push_to_hub",
        "run_classification",
        "run_comparison",
        "run_distillation",
        "run_evaluation",
        "run_export",
        "run_kfold",
        "run_lr_finder",
        "run_multitask",
        "run_preprocessing",
        "run_search",
    ]
    for path in RECIPES:
        for target in imported(path):
            assert not target.startswith(("hf_ext.", "recipes", "run_", "push_")), f"{path.name} imports {target}"


def test_the_public_api_is_complete():
    import hf_ext

    # ruff (RUF022) keeps it sorted.
    assert len(set(hf_ext.__all__)) == len(hf_ext.__all__)
    assert all(hasattr(hf_ext, name) for name in hf_ext.__all__)


def test_importing_brings_no_heavy_packages():
    code = (
        "import sys; from transformers import Trainer; before = set(sys.modules); "
        "import hf_ext; print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "sklearn",
        "scipy",
        "matplotlib",
        "jinja2",
        "evaluate",
        "pandas",
        "wandb",
        "optuna",
        "onnx",
        "onnxruntime",
        "onnxscript",
    }
    assert not heavy & set(result.stdout.split())
