"""The metrics as modules of the `evaluate` library, so that `evaluate.combine` takes them; nothing is fetched."""

import datasets
import evaluate
import numpy as np

from hf_ext.evaluation.calibration import expected_calibration_error
from hf_ext.evaluation.metrics import multi_label_metrics, regression_metrics, single_label_metrics
from hf_ext.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

CITATION = "Pedregosa et al. (2011), Scikit-learn: Machine Learning in Python, JMLR 12."


def _info(description: str, feature, citation: str = CITATION) -> evaluate.MetricInfo:
    features = datasets.Features({"predictions": feature[0], "references": feature[1]})
    return evaluate.MetricInfo(description=description, citation=citation, features=features, inputs_description="")


class SingleLabelMetrics(evaluate.Metric):
    """[`single_label_metrics`] of class ids."""

    def _info(self):
        return _info("Scores of class ids.", (datasets.Value("int64"), datasets.Value("int64")))

    def _compute(self, predictions, references):
        return single_label_metrics(np.asarray(references), np.asarray(predictions))


class MultiLabelMetrics(evaluate.Metric):
    """[`multi_label_metrics`] of 0/1 rows."""

    def _info(self):
        row = datasets.Sequence(datasets.Value("int64"))
        return _info("Scores of 0/1 rows.", (row, row))

    def _compute(self, predictions, references):
        return multi_label_metrics(np.asarray(references), np.asarray(predictions))


class RegressionMetrics(evaluate.Metric):
    """[`regression_metrics`] of values."""

    def _info(self):
        return _info("Errors and correlations.", (datasets.Value("float64"), datasets.Value("float64")))

    def _compute(self, predictions, references):
        return regression_metrics(np.asarray(references), np.asarray(predictions))


class CalibrationError(evaluate.Metric):
    """[`expected_calibration_error`] of rows of probabilities."""

    def _info(self):
        feature = (datasets.Sequence(datasets.Value("float64")), datasets.Value("int64"))
        return _info(
            "Expected calibration error.", feature, "Guo et al. (2017), On Calibration of Modern Neural Networks."
        )

    def _compute(self, predictions, references):
        return {"ece": expected_calibration_error(np.asarray(predictions), np.asarray(references))}


MODULES = {SINGLE_LABEL: SingleLabelMetrics, MULTI_LABEL: MultiLabelMetrics, REGRESSION: RegressionMetrics}
