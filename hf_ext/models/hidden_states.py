"""A student's hidden states beside its teacher's."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_ext.errors import ConfigurationError, DataError
from hf_ext.losses import HIDDEN_LOSSES, hidden_state_loss
from hf_ext.models.teacher import Teacher


def uniform_layers(student_layers: int, teacher_layers: int) -> dict[int, int]:
    """
    Which layer of the teacher each layer of the student follows: evenly spread, the last one the last.

    Jiao et al. (2020), "TinyBERT", compare it with the first and the last layers and find it best.

    Args:
        student_layers (`int`): Number of the student's layers.
        teacher_layers (`int`): Number of the teacher's layers.

    Returns:
        `dict[int, int]`: Layers are counted from 1; 0 would be the embeddings.
    """
    return {
        layer: max(1, (2 * layer * teacher_layers + student_layers) // (2 * student_layers))
        for layer in range(1, student_layers + 1)
    }


class HiddenStateMatching:
    """
    Draws the hidden states of a transformer student to those of its teacher, layer by layer.

    Both must see the same tokens: the same vocabulary, and the same ids in every batch.

    Args:
        kind (`str`): `"mse"` or `"relations"`; see [`hidden_state_loss`].
        layers (`dict[int, int]`, *optional*):
            For each matched layer of the student the teacher's, counted from 1 (0 is the embeddings). Defaults to
            [`uniform_layers`].
        student_config ([`~transformers.PreTrainedConfig`]): The student's.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): The student's.
        teacher ([`Teacher`]): Of a single member.

    Raises:
        ConfigurationError: If the two cannot be matched, with the reason.
    """

    def __init__(
        self,
        kind: str,
        layers: Mapping[int, int] | None,
        student_config: PreTrainedConfig,
        tokenizer: PreTrainedTokenizerBase | None,
        teacher: Teacher,
    ):
        if kind not in HIDDEN_LOSSES:
            raise ConfigurationError(f"hidden_states_loss is {kind!r}; valid are {', '.join(HIDDEN_LOSSES)}.")
        if len(teacher.members) > 1:
            raise ConfigurationError(
                f"Hidden states can be matched with one teacher; there are {len(teacher.members)}. Pass one, or set "
                "hidden_states_weight to 0."
            )
        teacher_config = teacher.members[0].model.config
        depths = {"student": student_config, "teacher": teacher_config}
        for owner, config in depths.items():
            depths[owner] = getattr(config, "num_hidden_layers", None)
            if depths[owner] is None:
                raise ConfigurationError(
                    f"The {owner} ({config.model_type}) has no transformer layers whose hidden states could be "
                    "matched. Set hidden_states_weight to 0."
                )
        if kind == "mse" and student_config.hidden_size != teacher_config.hidden_size:
            raise ConfigurationError(
                f"The student's hidden states are {student_config.hidden_size} wide, the teacher's "
                f"{teacher_config.hidden_size}; hidden_states_loss='mse' needs equal widths. Take 'relations'."
            )
        _check_vocabularies(tokenizer, teacher.tokenizers[0])
        self.kind = kind
        self.layers = uniform_layers(**{f"{owner}_layers": depth for owner, depth in depths.items()})
        if layers is not None:
            self.layers = _checked_layers(layers, depths)

    def loss(
        self,
        inputs: Mapping[str, Any],
        hidden: tuple[torch.Tensor, ...],
        teacher_inputs: Mapping[str, torch.Tensor],
        teacher_hidden: tuple[torch.Tensor, ...],
    ) -> torch.Tensor:
        """
        The mean over the matched layers of each row's [`hidden_state_loss`].

        Args:
            inputs (`Mapping`): The student's batch.
            hidden (`tuple[torch.Tensor]`): The student's hidden states, each of shape (rows, tokens, width).
            teacher_inputs (`Mapping`): The teacher's batch.
            teacher_hidden (`tuple[torch.Tensor]`): The teacher's hidden states.

        Returns:
            `torch.Tensor` of shape `(rows,)`.

        Raises:
            DataError: If the two batches hold different tokens.
        """
        mask = _common_mask(inputs, teacher_inputs)
        width = mask.shape[1]
        losses = [
            hidden_state_loss(hidden[own][:, :width], teacher_hidden[other][:, :width], mask, self.kind)
            for own, other in self.layers.items()
        ]
        return torch.stack(losses).mean(dim=0)


# ---- Inside ----


def _check_vocabularies(tokenizer: PreTrainedTokenizerBase | None, teachers: PreTrainedTokenizerBase) -> None:
    if tokenizer is None:
        raise ConfigurationError(
            "Hidden states are matched token by token, so the tokenizers must be compared: pass the student's as "
            "processing_class."
        )
    own, other = tokenizer.get_vocab(), teachers.get_vocab()
    if own == other:
        return
    differing = sorted(token for token in own.keys() | other.keys() if own.get(token) != other.get(token))
    raise ConfigurationError(
        f"Hidden states are matched token by token, but student and teacher have different vocabularies ({len(own)} "
        f"and {len(other)} tokens; {differing[0]!r} has the ids {own.get(differing[0])} and "
        f"{other.get(differing[0])}). Set hidden_states_weight to 0, or give the student the teacher's tokenizer."
    )


def _checked_layers(layers: Mapping[int, int], depths: dict[str, int]) -> dict[int, int]:
    pairs = dict(layers) if isinstance(layers, Mapping) else {}
    valid = all(
        type(own) is int and type(other) is int and 0 <= own <= depths["student"] and 0 <= other <= depths["teacher"]
        for own, other in pairs.items()
    )
    if not pairs or not valid:
        raise ConfigurationError(
            f"hidden_states_layers is {layers!r}; it must be a dict from layers of the student (0 to "
            f"{depths['student']}) to layers of the teacher (0 to {depths['teacher']}), such as "
            f"{{{depths['student']}: {depths['teacher']}}}; 0 is the embeddings."
        )
    return pairs


def _common_mask(inputs: Mapping[str, Any], teacher_inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The attention mask of both, without columns that only one of them has as padding."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    other = teacher_inputs["input_ids"].to(ids.device)
    other_mask = teacher_inputs["attention_mask"].to(ids.device)
    width = min(ids.shape[1], other.shape[1])
    lengths, other_lengths = mask.sum(dim=1), other_mask.sum(dim=1)
    kept = mask[:, :width].bool()
    same = (lengths == other_lengths) & (kept == other_mask[:, :width].bool()).all(dim=1)
    same &= torch.where(kept, ids[:, :width] == other[:, :width], True).all(dim=1) & (kept.sum(dim=1) == lengths)
    if not same.all():
        row = int((~same).nonzero()[0])
        raise DataError(
            f"Row {row + 1} of a batch has {int(lengths[row])} tokens for the student and {int(other_lengths[row])} "
            "for the teacher, or others; hidden states can be matched for the same tokens only. Tokenise both with "
            "the same tokenizer, from the left, and cut at the same length (max_seq_length, teacher_max_length)."
        )
    return kept
