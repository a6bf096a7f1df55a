"""The pipeline behind `load_pipeline`; apart from it, because importing the library's pipelines takes time."""

from typing import Any

from transformers import TextClassificationPipeline

from hf_ext.errors import ConfigurationError
from hf_ext.evaluation.calibration import Calibration
from hf_ext.evaluation.out_of_scope import OUT_OF_SCOPE
from hf_ext.problem_types import MULTI_LABEL


class CalibratedTextClassificationPipeline(TextClassificationPipeline):
    """
    A text-classification pipeline whose scores and labels are those of a calibration; see [`load_pipeline`].

    Args:
        calibration (`str` or `Path`): The file `calibration.json`, or its folder.
        kwargs: As [`~transformers.TextClassificationPipeline`], without `function_to_apply`.

    Raises:
        ConfigurationError: If the calibration is that of another model, or `function_to_apply` is given.
    """

    def __init__(self, *, calibration: Any, **kwargs):
        super().__init__(**kwargs)
        config = self.model.config
        names = [config.id2label[index] for index in range(config.num_labels)]
        self.calibration = Calibration.load(calibration, names, config.problem_type)

    def _sanitize_parameters(self, function_to_apply=None, **kwargs):
        if function_to_apply is not None:
            raise ConfigurationError(
                f"function_to_apply={function_to_apply!r}: the calibration decides what becomes of the logits. Leave "
                'it out, or use transformers.pipeline("text-classification").'
            )
        return super()._sanitize_parameters(**kwargs)

    def __call__(self, inputs, **kwargs):
        result = super().__call__(inputs, **kwargs)
        # A list of the classes of one text already: not a list of lists.
        listed = self.calibration.problem_type == MULTI_LABEL and "top_k" not in {**self._postprocess_params, **kwargs}
        return result[0] if isinstance(inputs, str) and listed else result

    def postprocess(self, model_outputs, top_k=1, _legacy=True):
        probabilities, decisions = self.calibration.apply(model_outputs["logits"][:1].float().numpy())
        scores, names = probabilities[0].tolist(), self.calibration.label_names
        outside = self.calibration.out_of_scope(probabilities)
        turned_away = outside is not None and bool(outside[0])
        ranked = sorted(range(len(names)), key=lambda index: -scores[index])
        if self.calibration.problem_type == MULTI_LABEL:
            predicted = {index for index in ranked if decisions[0, index]}
        else:
            predicted = set() if turned_away else {int(decisions[0])}
        if not _legacy:
            return [
                {"label": names[index], "score": scores[index], "predicted": index in predicted}
                for index in ranked[:top_k]
            ]
        if turned_away:
            return {"label": OUT_OF_SCOPE, "score": scores[ranked[0]]}
        answer = [{"label": names[index], "score": scores[index]} for index in ranked if index in predicted]
        return answer if self.calibration.problem_type == MULTI_LABEL else answer[0]
