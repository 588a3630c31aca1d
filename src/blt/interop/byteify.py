"""Byte-ifying: a BLT whose global transformer is a pretrained one, between new local modules (paper, section 6.2).

What of the pretrained model is kept: its layers, which see patches where they saw tokens. Its token embedding and its
output matrix go, and its last norm goes into what follows: the decoder's projection from latents is multiplied by that
norm's weight, and the rest of the norm, a factor per latent, is what the cross-attention's own norm would undo anyway.
The new patch states get the size that token embeddings had, where a projection makes them, so that the first layers
meet what they know.
"""

from dataclasses import replace

import torch

from blt.api import ByteLM
from blt.codec import encode
from blt.configuration import check
from blt.interop.llama import Llama
from blt.lm.finite import PARAGRAPH
from blt.model import BLT, BLTConfig
from blt.model.hash_embedding import ngram_hashes
from blt.model.layout import lay_out
from blt.shapes import Float, Tensor


def byteify(llama: Llama, local: BLTConfig, *, donor: ByteLM, seed: int = 0) -> ByteLM:
    """Make a model of bytes out of one of tokens; it has to be trained before it is of use.

    Args:
        llama: whose layers become the global transformer.
        local: shape of everything else; its global transformer does not matter.
        donor: whose entropy model and patch rule are taken.
        seed: of the new weights.

    Raises:
        ConfigurationError: the donor's rule has no entropy model where it needs one.
    """
    check(seed >= 0, f"seed: {seed}; at least 0")
    config = replace(local, global_transformer=llama.shape, global_rope_theta=llama.rope_theta)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blt = BLT(config)
    blt.global_transformer.layers.load_state_dict(llama.layers)
    lm = ByteLM(blt, patch_rule=donor.patch_rule, entropy_model=donor.entropy_model).eval()
    with torch.no_grad():
        blt.local_decoder.from_global.weight.mul_(llama.norm)
        to_global = blt.local_encoder.to_global
        if to_global is not None:
            to_global.weight.mul_(_size(llama.embedding) / _size(_patch_states(lm)))
    return lm


def _patch_states(lm: ByteLM) -> Float[Tensor, "1 P G"]:
    """Return the patch states of a paragraph."""
    byte_ids = encode(PARAGRAPH, bos=True)[None]
    layout = lay_out(byte_ids, lm.patches(byte_ids))
    hashes = ngram_hashes(byte_ids, layout.positions, lm.blt.config.hash_embedding)
    _, patch_states = lm.blt.local_encoder(lm.blt.hash_embedding(byte_ids, hashes), layout)
    return patch_states


def _size(states: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Return the root of the mean square."""
    return states.square().mean().sqrt()
