"""Configuration of the TextCNN. Saved beside the weights: imports nothing of the package but its neighbours."""

from transformers import PretrainedConfig

VARIANTS = ("rand", "static", "non-static", "multichannel")


class TextCNNConfig(PretrainedConfig):
    r"""
    Configuration of a [`TextCNNForSequenceClassification`], the convolutional network of Kim (2014).

    Args:
        vocab_size (`int`, *optional*, defaults to `30522`):
            Number of token ids.
        embed_size (`int`, *optional*, defaults to `300`):
            Width of a token's vector.
        num_filters (`int`, *optional*, defaults to `100`):
            Filters of each width, so the feature vector has `num_filters * len(filter_sizes)` entries.
        filter_sizes (`list[int]`, *optional*, defaults to `[3, 4, 5]`):
            Filter widths in tokens.
        dropout_prob (`float`, *optional*, defaults to `0.5`):
            Dropout before the classifier.
        variant (`str`, *optional*, defaults to `"rand"`):
            `"rand"` (vectors start random and are trained), `"static"` (vectors are given and fixed), `"non-static"`
            (given and trained) or `"multichannel"` (one fixed and one trained copy, the filters applied to both).
        embedding_init_range (`float`, *optional*, defaults to `0.25`):
            Random vectors are uniform in `[-embedding_init_range, embedding_init_range]`.
        max_norm (`float`, *optional*):
            Upper bound of the L2 norm of each class's weight vector (Kim uses 3). `None` leaves them free.
        pad_token_id (`int`, *optional*, defaults to `0`):
            Id of the padding token.

    Raises:
        ValueError: If a size is not positive, the variant is unknown or a probability is outside [0, 1).
    """

    model_type = "textcnn"
    attribute_map = {"hidden_size": "embed_size"}

    vocab_size: int = 30522
    embed_size: int = 300
    num_filters: int = 100
    filter_sizes: list[int] | tuple[int, ...] = (3, 4, 5)
    dropout_prob: float = 0.5
    variant: str = "rand"
    embedding_init_range: float = 0.25
    max_norm: float | None = None
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.filter_sizes = list(self.filter_sizes)
        for name in ("vocab_size", "embed_size", "num_filters"):
            if getattr(self, name) < 1:
                raise ValueError(f"TextCNNConfig: {name} is {getattr(self, name)}; it must be at least 1.")
        if not self.filter_sizes or min(self.filter_sizes) < 1:
            raise ValueError(
                f"TextCNNConfig: filter_sizes is {self.filter_sizes}; give at least one width, each 1 or more."
            )
        if self.variant not in VARIANTS:
            raise ValueError(f"TextCNNConfig: variant is {self.variant!r}; valid are {', '.join(VARIANTS)}.")
        if not 0 <= self.dropout_prob < 1:
            raise ValueError(f"TextCNNConfig: dropout_prob is {self.dropout_prob}; it must be in [0, 1).")
        if self.max_norm is not None and self.max_norm <= 0:
            raise ValueError(f"TextCNNConfig: max_norm is {self.max_norm}; it must be positive, or None for no bound.")


TextCNNConfig.register_for_auto_class()
