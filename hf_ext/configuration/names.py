"""The sections of configuration files, and the other names that fields and values go by."""

SECTIONS = (
    "model", "textcnn", "peft", "data", "preprocessing", "augmentation", "preflight", "training", "loss", "curriculum",
    "unfreezing", "learning_rates", "lr_finder", "early_stopping", "calibration", "teacher", "distillation",
    "multitask", "kfold", "search", "export", "health", "monitors", "tracking", "wandb", "run",
)  # fmt: skip

# The training guide's names -> the standard fields that they set. A section's own names come first.
ALIASES = {
    "model.architecture": ("model_type",),
    "model.pretrained_model": ("model_name_or_path",),
    "wandb.name": ("run_name",),
    "wandb.project": ("wandb_project",),
    "wandb.entity": ("wandb_entity",),
    "wandb.tags": ("wandb_tags",),
    "wandb.notes": ("wandb_notes",),
    "wandb.mode": ("wandb_mode",),
    "augmentation.enabled": ("augmentation_enabled",),
    "augmentation.techniques": ("augmentation_techniques",),
    "augmentation.probability": ("augmentation_prob",),
    "architecture": ("model_type",),
    "pretrained_model": ("model_name_or_path",),
    "num_layers": ("num_hidden_layers",),
    "batch_size": ("per_device_train_batch_size", "per_device_eval_batch_size"),
    "num_epochs": ("num_train_epochs",),
    "optimizer": ("optim",),
    "scheduler_type": ("lr_scheduler_type",),
    "overwrite_output_dir": ("overwrite",),
    "model_path": ("model_name_or_path",),
    "texts_file": ("test_file",),
}
# The guide's values, where they are not the standard ones. `None` leaves the field to its default.
VALUE_ALIASES = {
    "optim": {"adamw": "adamw_torch_fused"},
    "model_type": {"cnn": "textcnn", "transformer": None},
}
# A value that sets another field: (field, value) -> the field that it switches on.
SWITCHES = {("learning_rate", "auto"): "find_learning_rate"}
# Names of transformers 4, of its example script and of arguments in Python -> what to write in a file or a flag.
REPLACED = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps with a value below 1",
    "no_cuda": "use_cpu",
    "use_mps_device": "nothing: the device is found by itself",
    "group_by_length": "train_sampling_strategy=group_by_length (the default here)",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "nothing: checkpoints are always safetensors",
    "include_inputs_for_metrics": "include_for_metrics=inputs",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "use_auth_token": "token",
    "task_name": "dataset_name=glue with dataset_config_name=<task>",
    "half_precision_backend": "mixed_precision",
    "fp16_opt_level": "mixed_precision",
    "fp16_backend": "mixed_precision",
    "no_train": "do_train=false",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_organization": "hub_model_id=<organization>/<name>",
    "push_to_hub_token": "hub_token",
    "learning_rates": 'search_space={"learning_rates": [...]}, or the same under "search" (run_search.py)',
    "batch_sizes": 'search_space={"batch_sizes": [...]}, or the same under "search" (run_search.py)',
    "dropout_rates": 'search_space={"dropout_rates": [...]}, or the same under "search" (run_search.py)',
    "loss_weights": "weight, beside each task's files in tasks (run_multitask.py)",
}
