"""TextCNN (Kim 2014) as a `PreTrainedModel`. Saved beside the weights: imports only its neighbours."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_textcnn import TextCNNConfig
from .freezing import freeze_parameters, unfreeze_parameters
from .sentence_convolution import largest_responses, pack

# To answer fewer, it takes longer to rearrange the filters than what that gains.
FEW_TEXTS = 8


class TextCNNEmbeddings(nn.Module):
    """
    Token vectors: a trained channel, a fixed channel or both.

    The fixed channel is a persistent buffer, because `requires_grad_(False)` set here would not survive
    `from_pretrained`, which rebuilds the module before it loads the weights.
    """

    def __init__(self, config: TextCNNConfig):
        super().__init__()
        self.word_embeddings = None
        if config.variant != "static":
            self.word_embeddings = nn.Embedding(config.vocab_size, config.embed_size)
        if config.variant in ("static", "multichannel"):
            self.register_buffer("static_embeddings", torch.zeros(config.vocab_size, config.embed_size))
        else:
            self.static_embeddings = None

    def set_word_vectors(self, vectors: torch.Tensor) -> None:
        """Start every channel from `vectors` of shape (vocab_size, embed_size)."""
        with torch.no_grad():
            if self.word_embeddings is not None:
                self.word_embeddings.weight.copy_(vectors)
            if self.static_embeddings is not None:
                self.static_embeddings.copy_(vectors)

    def forward(self, input_ids: torch.Tensor) -> list[torch.Tensor]:
        channels = []
        if self.word_embeddings is not None:
            channels.append(self.word_embeddings(input_ids))
        if self.static_embeddings is not None:
            channels.append(F.embedding(input_ids, self.static_embeddings))
        return channels


class TextCNNPreTrainedModel(PreTrainedModel):
    config_class = TextCNNConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"

    def _init_weights(self, module):
        bound = self.config.embedding_init_range
        if isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, TextCNNEmbeddings) and module.static_embeddings is not None:
            init.uniform_(module.static_embeddings, -bound, bound)
        elif isinstance(module, nn.Conv1d):
            fan_in = module.in_channels * module.kernel_size[0]
            init.uniform_(module.weight, -(fan_in**-0.5), fan_in**-0.5)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=0.01)
            init.zeros_(module.bias)


class TextCNNModel(TextCNNPreTrainedModel):
    """Embeddings, convolutions and max-over-time pooling: token ids (rows, length) -> features (rows, features)."""

    def __init__(self, config: TextCNNConfig):
        super().__init__(config)
        self.embeddings = TextCNNEmbeddings(config)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embed_size, config.num_filters, width) for width in config.filter_sizes
        )
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        if attention_mask is None:
            padding = self.config.pad_token_id
            attention_mask = torch.ones_like(input_ids) if padding is None else input_ids != padding
        mask = attention_mask.bool()
        # A trace must not ask for sizes.
        if self._is_plain_cpu() and mask.numel() and (torch.is_grad_enabled() or len(mask) >= FEW_TEXTS):
            gap = max(self.config.filter_sizes) - 1
            ids, tokens, lengths = pack(input_ids, mask, gap, self.config.pad_token_id or 0)
            (vectors,) = self._channels(ids, tokens)
            weights = [convolution.weight for convolution in self.convolutions]
            responses = largest_responses(vectors, lengths, weights)
        else:
            responses = self._largest_responses(self._channels(input_ids, mask), mask)
        biases = [convolution.bias for convolution in self.convolutions]
        return torch.cat([F.relu(largest + bias) for largest, bias in zip(responses, biases, strict=True)], dim=1)

    def _is_plain_cpu(self) -> bool:
        """Whether nothing but the CPU's own float32 is to compute here: no tracing, no other number format."""
        weight = self.convolutions[0].weight
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        plain = weight.is_cpu and weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return plain and not traced and self.config.variant != "multichannel"

    def _channels(self, input_ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """Vectors of the ids, in a dimension of their own, with zeros where there is no token."""
        return [vectors * mask.unsqueeze(-1).to(vectors.dtype) for vectors in self.embeddings(input_ids)]

    def _largest_responses(self, channels: list[torch.Tensor], mask: torch.Tensor) -> list[torch.Tensor]:
        """As [`largest_responses`], over all channels, for every device and number format."""
        # Zeros on both sides let every filter see every token at each of its positions, and give texts that are
        # shorter than a filter (or empty) a window at all.
        margin = max(self.config.filter_sizes) - 1
        padded = [F.pad(channel.transpose(1, 2), (margin, margin)) for channel in channels]
        positions = torch.arange(mask.shape[1], device=mask.device)
        ends = torch.where(mask, positions + 1, 0).amax(dim=1) if mask.shape[1] else None
        found = []
        for convolution in self.convolutions:
            responses = sum(F.conv1d(channel, convolution.weight) for channel in padded)
            if ends is not None:
                # Windows that begin beyond the last token hold only padding. They are left out, so that a text's
                # features do not depend on how far its batch was padded; window 0 stays for empty texts.
                starts = torch.arange(responses.shape[2], device=ends.device)
                beyond = (starts >= margin + ends.unsqueeze(1)) & (starts > 0)
                responses = responses.masked_fill(beyond.unsqueeze(1), float("-inf"))
            found.append(responses.amax(dim=2))
        return found


class TextCNNForSequenceClassification(TextCNNPreTrainedModel):
    """
    Convolutional sentence classifier (Kim 2014, "Convolutional Neural Networks for Sentence Classification").

    Trains on single-label (cross-entropy), multi-label (binary cross-entropy) and regression (mean squared error)
    targets, chosen by `config.problem_type`, or from the labels as the library's other heads do.

    Example:

    ```python
    >>> from hf_ext import TextCNNConfig, TextCNNForSequenceClassification
    >>> model = TextCNNForSequenceClassification(TextCNNConfig(vocab_size=1000, num_labels=2))
    ```
    """

    def __init__(self, config: TextCNNConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.encoder = TextCNNModel(config)
        self.dropout = nn.Dropout(config.dropout_prob)
        self.classifier = nn.Linear(config.num_filters * len(config.filter_sizes), config.num_labels)
        self.post_init()

    def freeze_parameters(self, patterns: list[str]) -> list[str]:
        """Exclude parameters from training by name pattern; see [`hf_ext.freeze_parameters`]."""
        return freeze_parameters(self, patterns)

    def unfreeze_parameters(self, patterns: list[str]) -> list[str]:
        """Train parameters again by name pattern; see [`hf_ext.unfreeze_parameters`]."""
        return unfreeze_parameters(self, patterns)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[torch.Tensor, ...]:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`): Token ids.
            attention_mask (`torch.Tensor` of shape `(rows, length)`, *optional*):
                1 for tokens, 0 for padding. By default everything but `config.pad_token_id` is a token.
            labels (`torch.Tensor`, *optional*):
                Class ids of shape `(rows,)`, 0/1 floats of shape `(rows, num_labels)` or values of shape `(rows,)`.
            return_dict (`bool`, *optional*): `False` for a tuple of the loss, if there is one, and the logits.

        Returns:
            [`~transformers.modeling_outputs.SequenceClassifierOutput`] with logits of shape `(rows, num_labels)`.
        """
        features = self.dropout(self.encoder(input_ids, attention_mask))
        logits = F.linear(features, self._bounded_weight(), self.classifier.bias)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _bounded_weight(self) -> torch.Tensor:
        """The classifier's weight with each class's vector shortened to `config.max_norm` (Kim 2014, section 2.1)."""
        weight, bound = self.classifier.weight, self.config.max_norm
        if bound is None:
            return weight
        if self.training:
            # Kim projects after each step; doing it at the start of the next forward is the same trajectory.
            with torch.no_grad():
                weight.renorm_(p=2, dim=0, maxnorm=bound)
            return weight
        return torch.renorm(weight, p=2, dim=0, maxnorm=bound)


TextCNNForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
