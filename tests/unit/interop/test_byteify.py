from dataclasses import replace

import pytest
import torch

from blt.ops import rotary_table

pytest.importorskip("gguf")
pytest.importorskip("transformers")

from blt.api import ByteLM
from blt.codec import encode
from blt.interop.byteify import byteify
from blt.interop.llama import read_llama
from blt.lm.finite import PARAGRAPH
from blt.model.hash_embedding import ngram_hashes
from blt.model.layout import lay_out
from blt.nn import CausalPattern
from llama_models import new_llama


@pytest.fixture
def llama(tmp_path):
    new_llama().save_pretrained(tmp_path / "llama")
    return read_llama(tmp_path / "llama")


@pytest.fixture
def lm(llama, tiny_lm):
    return byteify(llama, tiny_lm.blt.config, donor=tiny_lm)


def patch_states(lm):
    byte_ids = encode(PARAGRAPH, bos=True)[None]
    layout = lay_out(byte_ids, lm.patches(byte_ids))
    hashes = ngram_hashes(byte_ids, layout.positions, lm.blt.config.hash_embedding)
    return layout, lm.blt.local_encoder(lm.blt.hash_embedding(byte_ids, hashes), layout)[1]


def test_the_global_transformer_computes_what_the_pretrained_layers_compute(lm, llama):
    assert lm.blt.config.global_transformer == llama.shape
    layout, states = patch_states(lm)
    positions = torch.arange(layout.num_slots)[None]
    table = rotary_table(positions, head_dim=16, theta=777.0)
    expected = states
    for index in range(llama.shape.num_layers):
        layer = lm.blt.global_transformer.layers.layers[index]
        for name, weight in layer.state_dict().items():
            assert torch.equal(weight, llama.layers[f"layers.{index}.{name}"])
        expected = layer(expected, table, CausalPattern(torch.zeros_like(positions)))
    torch.testing.assert_close(lm.blt.global_transformer(states, layout), expected)


def test_the_rest_is_new_and_as_the_seed_says(lm, llama, tiny_lm):
    assert replace(lm.blt.config, global_transformer=tiny_lm.blt.config.global_transformer, global_rope_theta=None) == (
        tiny_lm.blt.config
    )
    again, other = (byteify(llama, tiny_lm.blt.config, donor=tiny_lm, seed=seed) for seed in (0, 1))
    for name, weight in lm.blt.state_dict().items():
        assert torch.equal(weight, again.blt.state_dict()[name])
        is_new = not name.startswith("global_transformer.") and "norm" not in name
        assert torch.equal(weight, other.blt.state_dict()[name]) != is_new, name


def test_entropy_model_and_patch_rule_are_the_donors(lm, tiny_lm):
    byte_ids = encode(PARAGRAPH, bos=True)[None]
    assert torch.equal(lm.patches(byte_ids).ends, tiny_lm.patches(byte_ids).ends)


def test_patch_states_have_the_size_of_token_embeddings(lm, llama):
    _, states = patch_states(lm)
    torch.testing.assert_close(states.square().mean(), llama.embedding.square().mean())


def test_the_decoder_reads_latents_as_after_the_pretrained_norm(lm, llama, tiny_lm):
    """Up to a factor per latent, which the cross-attention's own norm undoes."""
    plain = byteify(replace(llama, norm=torch.ones_like(llama.norm)), tiny_lm.blt.config, donor=tiny_lm)
    latents = torch.randn(1, 5, 64) * torch.rand(1, 5, 1)
    normed = torch.nn.functional.rms_norm(latents, (64,), llama.norm, 0.0)
    sizes = latents.square().mean(-1).sqrt()[..., None, None]
    found = lm.blt.local_decoder.patch_vectors(latents) / sizes
    torch.testing.assert_close(found, plain.blt.local_decoder.patch_vectors(normed))


def test_a_byteified_model_is_causal_and_its_cached_steps_are_its_forward(lm):
    from blt.inspection import verify

    assert all(check.held for check in verify(lm))


def test_it_survives_its_folder(lm, tmp_path):
    lm.save_pretrained(tmp_path / "saved")
    again = ByteLM.from_pretrained(tmp_path / "saved")
    assert again.config == lm.config
    byte_ids = encode("Tom had a red ball.", bos=True)[None]
    assert torch.equal(again(byte_ids), lm(byte_ids))
