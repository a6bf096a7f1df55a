"""
Convolutions of sentences and their maxima as one matrix product: on a CPU faster than `conv1d`, most of all for short
texts. Saved beside the weights: imports nothing of the package.
"""

import torch
from torch.autograd.function import once_differentiable

# Values at a time; more do not stay in a cache.
CHUNK_VALUES = 2_000_000


def largest_responses(vectors: torch.Tensor, ends: torch.Tensor, weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """
    The largest response of each filter over the windows of each text, without bias.

    Windows may hang over both ends of a text, where they see zeros. Those that hold no token count 0 for all but the
    widest filters, as if every text stood between as many zeros as these need.

    Args:
        vectors (`torch.Tensor` of shape (rows, length, width)): Zeros where there is no token; length at least 1.
        ends (`torch.Tensor` of shape (rows,)): Places up to the last token, of each row.
        weights (`list[torch.Tensor]` of shapes (filters, width, size)): As `torch.nn.Conv1d` has them.

    Returns:
        `list[torch.Tensor]` of shape (rows, filters), one for each of `weights`.
    """
    return list(_LargestResponses.apply(vectors, ends, *weights))


class _LargestResponses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, vectors, ends, *weights):
        rows, length, width = vectors.shape
        matrix = torch.cat([weight.permute(2, 0, 1).reshape(-1, width) for weight in weights])
        widest = max(weight.shape[2] for weight in weights)
        largest = [vectors.new_empty(rows, weight.shape[0]) for weight in weights]
        places = [ends.new_empty(rows, weight.shape[0]) for weight in weights]
        for part in _parts(rows, length * len(matrix)):
            products = (vectors[part].reshape(-1, width) @ matrix.t()).view(-1, length, len(matrix))
            begin = 0
            for number, (filters, _, size) in enumerate(weight.shape for weight in weights):
                responses = products.new_zeros(len(products), length + size - 1, filters)
                for place in range(size):
                    shift = size - 1 - place
                    responses[:, shift : shift + length] += products[:, :, begin : begin + filters]
                    begin += filters
                if size == widest:
                    windows = torch.arange(length + size - 1, device=vectors.device)
                    last = (ends[part] + size - 1).clamp_min(1)
                    responses.masked_fill_((windows >= last.unsqueeze(1)).unsqueeze(2), float("-inf"))
                torch.max(responses, dim=1, out=(largest[number][part], places[number][part]))
                if size != widest:
                    largest[number][part].clamp_min_(0)
        ctx.save_for_backward(vectors, matrix, *largest, *places)
        ctx.shapes, ctx.widest = [weight.shape for weight in weights], widest
        ctx.mark_non_differentiable(*places)
        return (*largest,)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        vectors, matrix, *saved = ctx.saved_tensors
        count = len(ctx.shapes)
        largest, places = saved[:count], saved[count:]
        rows, length, width = vectors.shape
        of_vectors = torch.empty_like(vectors) if ctx.needs_input_grad[0] else None
        of_matrix = torch.zeros_like(matrix)
        for part in _parts(rows, length * len(matrix)):
            products = vectors.new_zeros(len(vectors[part]), length, len(matrix))
            begin = 0
            for number, (filters, _, size) in enumerate(ctx.shapes):
                gradient = gradients[number][part]
                if size != ctx.widest:
                    gradient = gradient * (largest[number][part] > 0)
                for place in range(size):
                    at = places[number][part] - (size - 1) + place
                    inside = (at >= 0) & (at < length)
                    target = products[:, :, begin : begin + filters]
                    target.scatter_(1, at.clamp(0, length - 1).unsqueeze(1), (gradient * inside).unsqueeze(1))
                    begin += filters
            flat = products.view(-1, len(matrix))
            of_matrix.addmm_(flat.t(), vectors[part].reshape(-1, width))
            if of_vectors is not None:
                of_vectors[part] = (flat @ matrix).view(-1, length, width)
        of_weights, begin = [], 0
        for filters, _, size in ctx.shapes:
            own = of_matrix[begin : begin + size * filters]
            of_weights.append(own.view(size, filters, width).permute(1, 2, 0))
            begin += size * filters
        return (of_vectors, None, *of_weights)


def _parts(rows: int, values_of_a_row: int) -> list[slice]:
    step = max(1, CHUNK_VALUES // values_of_a_row)
    return [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
