"""What follows from the settings of a distillation."""

from typing import Any

from hf_ext.defaults.training import complete_training_values
from hf_ext.defaults.whole_run import all_of_the_run
from hf_ext.errors import ConfigurationError


def complete_distillation_values(values: dict[str, Any]) -> dict[str, Any]:
    """
    Add what a distillation's settings imply: those of a training run that does all that the data allows.

    Args:
        values (`dict[str, Any]`): Field names -> given values.

    Returns:
        `dict[str, Any]`

    Raises:
        ConfigurationError: If settings contradict each other or could have no effect.
    """
    values = all_of_the_run(values, "A distillation trains, and compares teacher, student and control")
    if values.get("calibrate"):
        raise ConfigurationError(
            "calibrate=true: teacher, student and control are compared as they are. Calibrate the student afterwards: "
            "run_classification.py --model_name_or_path <output_dir> --validation_file ... --test_file ... --do_eval "
            "--do_predict --calibrate true."
        )
    if values.get("curriculum") not in (None, "length", "rarity"):
        raise ConfigurationError(
            f"curriculum={values['curriculum']}: not all rows of a transfer set have a label and the columns of the "
            "training file. Valid here: length, rarity."
        )
    if values.get("augmentation_on_the_fly") and values.get("teacher_logits") != "online":
        raise ConfigurationError(
            "augmentation_on_the_fly makes new texts in every epoch, which the teacher has not answered: pass "
            "--teacher_logits online, or store copies with --augmentation_factor."
        )
    if (values.get("hidden_states_weight") or 0) > 0:
        if values.get("model_type"):
            raise ConfigurationError(
                f"hidden_states_weight={values['hidden_states_weight']}: a {values['model_type']} has no transformer "
                "layers to match with the teacher's. Leave it out."
            )
        if values.get("teacher_logits") != "online":
            raise ConfigurationError(
                f"hidden_states_weight={values['hidden_states_weight']}: hidden states are not kept on disk. Pass "
                "--teacher_logits online."
            )
    if values.get("student_embeddings") == "teacher":
        if values.get("model_type") != "textcnn":
            raise ConfigurationError(
                "student_embeddings=teacher starts the word vectors of a TextCNN; a pretrained student has its own. "
                "Pass --model_type textcnn, or leave it out."
            )
        if values.get("word_vectors"):
            raise ConfigurationError(
                f"student_embeddings=teacher and word_vectors={values['word_vectors']} are two starts of the same "
                "vectors; leave one out."
            )
    return complete_training_values(values)
