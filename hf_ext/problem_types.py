"""The kinds of task, as a model's configuration names them, and the label that is none."""

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
# Of an integer label that is none, as in torch.
UNLABELLED = -100
