"""What the embedded models' initialisations promise, in the models that start from them."""

import pytest
import torch

from mechvrp.models.zoo.locality import OFFSETS, start_local
from mechvrp.models.zoo.tiny_llava import TinyLlava
from mechvrp.models.zoo.tiny_paligemma import TinyPaliGemma
from mechvrp.models.zoo.tiny_qwen2_vl import TinyQwen2VL


@pytest.fixture(scope="module")
def qwen():
    return TinyQwen2VL().build(0)[0]


def decoder(model):
    return model.model.language_model


@pytest.mark.parametrize("family", [TinyLlava, TinyPaliGemma, TinyQwen2VL])
def test_attention_starts_by_matching(family):
    for layer in decoder(family().build(0)[0]).layers:
        assert torch.equal(layer.self_attn.k_proj.weight, layer.self_attn.q_proj.weight)


def test_words_are_still_words_behind_qwens_first_layer(qwen):
    embedded = qwen.get_input_embeddings().weight[None, :20]
    positions = torch.arange(20)[None, None].expand(3, 1, -1)
    rotary = decoder(qwen).rotary_emb(embedded, positions)
    first, second = decoder(qwen).layers[:2]
    assert torch.equal(first(embedded, position_embeddings=rotary), embedded)
    assert not torch.equal(second(embedded, position_embeddings=rotary), embedded)


def attention(visual, block, side):
    """``[heads, side * side, side * side]``: attention over a blank square image, whose patches are
    alike, so that only places can matter."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()])
    hidden = torch.zeros(side * side, visual.config.embed_dim)
    cos, sin = visual.rotary_pos_emb(hidden, places.T)
    qkv = block.attn.qkv(hidden).unflatten(-1, (3, len(OFFSETS), -1))

    def rotated(x):
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        return x * cos[:, None] + turned * sin[:, None]

    query, key = rotated(qkv[:, 0]), rotated(qkv[:, 1])
    scores = torch.einsum("qhd,khd->hqk", query, key) * block.attn.scaling
    return scores.softmax(-1), places


def test_each_head_of_qwens_tower_looks_at_its_own_neighbour_first(qwen):
    visual = qwen.model.visual
    for block in visual.blocks:
        weights, places = attention(visual, block, side=12)
        inside = ((places > 1) & (places < 10)).all(0)
        for head, offset in enumerate(OFFSETS):
            aimed = places[:, weights[head].argmax(-1)] - places
            assert (aimed[:, inside] == torch.tensor(offset)[:, None]).all()
            near = (places[:, None] - places[:, :, None]).abs().amax(0) <= 2
            share = (weights[head] * near).sum(-1)[inside]
            assert share.min() > 0.6  # 25 of 144 patches: 0.17 if spread evenly


def test_a_sharper_start_looks_at_fewer_patches():
    visual = TinyQwen2VL().build(0)[0].model.visual
    frequencies = visual.rotary_pos_emb.inv_freq
    peaks = []
    for sharpness in (1.0, 4.0):
        start_local(visual.blocks, frequencies, sharpness=sharpness)
        weights, _ = attention(visual, visual.blocks[0], side=12)
        peaks.append(weights.amax(-1)[:, 66].mean())
    assert peaks[1] > 2 * peaks[0]
