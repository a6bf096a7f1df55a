"""Models of our own, registered with the Auto classes."""

from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_ext.models.configuration_textcnn import TextCNNConfig
from hf_ext.models.modeling_textcnn import TextCNNForSequenceClassification

__all__ = ["TextCNNConfig", "TextCNNForSequenceClassification"]

# Not in the model's own files: those are loaded by `trust_remote_code` too, where registering twice would fail.
AutoConfig.register(TextCNNConfig.model_type, TextCNNConfig)
AutoModelForSequenceClassification.register(TextCNNConfig, TextCNNForSequenceClassification)
