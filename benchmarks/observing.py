"""The observation pass against one greedy and K sampled ``generate`` calls an example."""

from __future__ import annotations

import torch

import mechvrp
from benchmarks import models
from benchmarks.table import Row
from benchmarks.timing import interleaved
from mechvrp.reliability import observe

__all__ = ["rows"]

K = 10


def rows(shape: models.Shape, *, examples: int = 2, repeats: int = 3) -> list[Row]:
    """Examples per second of both, for answers of one token and its end, and for longer ones.

    The straightforward way is that of the reference code: eager attention; attention weights and hidden
    states kept by the greedy call; the samples by calls of their own; one example at a time. Each example is
    encoded once for all its calls. The observation pass does more: margins, structure, entropies.
    """
    ours = models.answering(shape)
    naive = models.answering(shape, attn="eager")  # the same weights
    warm, asked = (models.samples(shape, examples, seed) for seed in (1, 2))
    texts: dict[str, list[str]] = {}
    found = []
    for steps in (2, 4):

        def pass_once(samples: list[mechvrp.Sample] = asked, steps: int = steps) -> list[str]:
            seen = observe(
                ours, samples, k=K, max_new_tokens=steps, batch_size=examples, keep_maps=False
            )
            return [answer.text for answer in seen.answers]

        def by_calls(samples: list[mechvrp.Sample] = asked, steps: int = steps) -> list[str]:
            texts = []
            for sample in samples:
                batch = naive.encode(sample)
                out = naive.generate_output(
                    batch,
                    max_new_tokens=steps,
                    return_dict_in_generate=True,
                    output_attentions=True,
                    output_hidden_states=True,
                    output_logits=True,
                )
                ids = out.sequences[0, batch.tokens.length :]
                texts.append(naive.tokenizer.decode(ids, skip_special_tokens=True).strip())
                for _ in range(K):
                    naive.generate(
                        batch, max_new_tokens=steps, do_sample=True, temperature=0.7, top_p=0.9
                    )
            return texts

        torch.manual_seed(0)
        pass_once(warm)
        by_calls(warm[:1])
        seconds = interleaved(
            {
                "pass": lambda run=pass_once: texts.update(ours=run()),
                "calls": lambda run=by_calls: texts.update(theirs=run()),
            },
            repeats,
        )
        if texts["ours"] != texts["theirs"]:
            raise AssertionError("the observation pass and generate give other answers")
        found.append(
            Row(
                f"observation pass with K = {K}, answers of {steps} tokens: examples per second against "
                f"{K + 1} generate calls an example",
                seconds["calls"] / seconds["pass"],
                "x",
                least=8.0 if steps == 2 else None,
                detail=f"{shape.name}-shaped, {shape.image_tokens} image tokens, {examples} examples, ours in "
                f"one batch; {examples / seconds['pass']:.3g} against {examples / seconds['calls']:.3g} a "
                f"second; {K + 1} prefills against one is the ceiling of one core; random weights, so that "
                "all samples differ from the first token on"
                + (" (a word and the end token)" if steps == 2 else ""),
            )
        )
    return found
