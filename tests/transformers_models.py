"""Small models of transformers in odd shapes, with random weights, and what they make of a text."""

import dataclasses
import warnings
from dataclasses import dataclass, field

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of others, on import
    from transformers import AutoTokenizer as AutoTokenizer
    from transformers import BltConfig, BltForCausalLM
    from transformers.utils import logging

from blt.api import ByteLM
from blt.codec import encode
from blt.entropy import EntropyConfig
from blt.interop import write_transformers
from blt.lm import LMConfig
from blt.model import BLTConfig, HashConfig, LocalConfig, TransformerConfig
from blt.patching import EntropyRule

logging.set_verbosity_error()
logging.disable_progress_bar()

TEXT = 'Once upon a time Zoë ate 3 crêpes by the lake; \n"tout à coup" – ok? Tom had a red ball. 魚'
IDS = encode(TEXT, bos=True)[None]


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """What varies between the models of transformers that we read."""

    k: int = 2
    encoder_layers: int = 1
    encoder_cross: bool = False
    decoder_layers: int = 2
    decoder_cross: bool = True
    functions: int = 1
    ngrams: list = field(default_factory=lambda: [3, 4])
    local_dim: int = 24
    global_dim: int = 32
    heads: tuple = (2, 4, 3, 2)
    key_value_heads: tuple = (None, None, None, None)
    hidden: tuple = (40, 50, 33, 21)
    window: int | None = 16
    patcher_window: int | None = 8
    epsilons: tuple = (1e-5, 1e-5, 1e-5, 1e-5)
    tied: bool = False
    mode: str = "entropy"
    max_patch_length: int | None = None
    theta: float = 500000.0

    def config(self):
        def stack(index, dim, layers, **more):
            return {
                "hidden_size": dim,
                "num_hidden_layers": layers,
                "num_attention_heads": self.heads[index],
                "num_key_value_heads": self.key_value_heads[index],
                "intermediate_size": self.hidden[index],
                "rms_norm_eps": self.epsilons[index],
                "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0 if index == 3 else self.theta},
                **more,
            }

        local = {"cross_attn_k": self.k, "hidden_size_global": self.global_dim}
        encoder = stack(0, self.local_dim, self.encoder_layers, cross_attn_all_layers=self.encoder_cross, **local)
        decoder = stack(2, self.local_dim, self.decoder_layers, cross_attn_all_layers=self.decoder_cross, **local)
        return BltConfig(
            cross_attn_k=self.k,
            encoder_hash_byte_group_size=self.ngrams,
            encoder_hash_byte_group_vocab=61,
            encoder_hash_byte_group_nb_functions=self.functions,
            local_attention_window_len=self.window,
            tie_word_embeddings=self.tied,
            patching_mode=self.mode,
            patching_threshold=5.0,
            max_patch_length=self.max_patch_length,
            encoder_config=encoder,
            global_config=stack(1, self.global_dim, 2),
            decoder_config=decoder,
            patcher_config=stack(3, 16, 2, sliding_window=self.patcher_window),
            pad_token_id=0,
        )

    def save(self, folder, **options):
        """Write such a model, its threshold amid the entropies of the text, so that patches are of all lengths."""
        model = BltForCausalLM(self.config()).eval()
        randomise(model)
        with torch.no_grad():
            entropies = model.model.patcher(IDS)[0]
        model.config.patching_threshold = amid(entropies)
        model.save_pretrained(folder, **options)
        return model


def amid(entropies):
    """Return a threshold above some three in five entropies, in the widest gap there: rounding decides nothing."""
    ordered = entropies.flatten().sort().values
    near = ordered[len(ordered) * 11 // 20 : len(ordered) * 13 // 20 + 2]
    place = int(near.diff().argmax())
    return float(near[place : place + 2].mean())


def randomise(model):
    """Draw weights anew: norms too, and embeddings large enough for norms to be far from their ε."""
    model.requires_grad_(False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.uniform_(0.5, 1.5)
            elif "embed" in name or "bytes" in name or "ngrams" in name:
                weight.normal_(std=0.5)
            else:
                weight.normal_(std=weight.shape[1] ** -0.5)


THEIRS = {
    "plain": Theirs(),
    "one-query-three-encoder-layers": Theirs(k=1, encoder_layers=3, functions=2, heads=(3, 2, 2, 4)),
    "cross-attention-everywhere": Theirs(k=3, encoder_layers=2, encoder_cross=True, functions=3, ngrams=[2, 5, 8]),
    "four-queries-read-first": Theirs(k=4, decoder_layers=3, decoder_cross=False, hidden=(8, 64, 128, 16)),
    "no-projection-tied": Theirs(k=2, local_dim=16, heads=(2, 4, 4, 2), tied=True),
    "shared-keys": Theirs(heads=(6, 4, 4, 2), key_value_heads=(2, 2, 1, 1)),
    "other-epsilons": Theirs(epsilons=(1e-3, 1e-2, 3e-3, 1e-1), theta=10000.0),
    "no-windows": Theirs(window=None, patcher_window=None),
    "longest-patch": Theirs(max_patch_length=3),
    "every-byte-a-patch": Theirs(mode="byte"),
}
"""Models of transformers."""


def ours(**fields):
    """Return a shape of ours; encoder and decoder windows are one, as transformers has it."""
    values = {
        "local_encoder": LocalConfig(dim=24, num_layers=1, num_heads=3, window=16),
        "global_transformer": TransformerConfig(dim=32, num_layers=2, num_heads=4),
        "local_decoder": LocalConfig(dim=24, num_layers=2, num_heads=2, window=16),
        "hash_embedding": HashConfig(ngram_sizes=(3, 4), num_rows=61),
        "queries_per_patch": 2,
    }
    return BLTConfig(**values | fields)


LAYERS_3 = LocalConfig(dim=24, num_layers=3, num_heads=3, window=16, feed_forward_dim=50, norm_epsilon=1e-6)
OURS = {
    "plain": ours(),
    "residual-twice": ours(cross_attention_residual="twice", local_decoder=LAYERS_3),
    "one-query-untied-three-functions": ours(
        queries_per_patch=1,
        tie_embeddings=False,
        hash_embedding=HashConfig(ngram_sizes=(2, 5, 8), num_rows=50, num_functions=3),
        local_encoder=dataclasses.replace(LAYERS_3, num_heads=2),
    ),
    "three-queries-read-first": ours(queries_per_patch=3, decoder_cross_attention="first", local_decoder=LAYERS_3),
    "no-projection": ours(queries_per_patch=4, global_transformer=TransformerConfig(dim=96, num_layers=2, num_heads=4)),
    "no-ngrams": ours(hash_embedding=HashConfig(ngram_sizes=()), rope_theta=10000.0),
    "no-projection-twice": ours(
        queries_per_patch=4,
        global_transformer=TransformerConfig(dim=96, num_layers=2, num_heads=4, norm_epsilon=1e-3),
        cross_attention_residual="twice",
        decoder_cross_attention="first",
    ),
}
"""Shapes of ours."""
ENTROPY = EntropyConfig(dim=16, num_layers=2, num_heads=2, window=6, rope_theta=10000.0)


def patch_lengths(ends):
    """Return transformers' form of patches `B T`, B = 1: lengths, the last that of the open patch, even if 0."""
    starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[0].nonzero()[:, 0] + 1])
    return torch.diff(starts, append=torch.tensor([ends.shape[1]]))[None]


@torch.no_grad()
def logits_of(model, ids, ends=None):
    """Run a model of transformers, on given patches or on its own."""
    lengths = None if ends is None else patch_lengths(ends)
    return model(ids, patch_lengths=lengths, use_cache=False).logits


@torch.no_grad()
def own_patch_lengths(model, ids):
    """Ask a model of transformers for its patches."""
    config = model.config
    options = {"threshold": config.patching_threshold, "max_patch_length": config.max_patch_length}
    return model.model.patcher(ids, patch_size=config.patch_size, **options)[1]


def deviation(first, second):
    return float((first - second).detach().abs().max())


def relative_deviation(first, second):
    """Of models whose residual is rescaled: exact but for the ε of the decoder's norms; see `blt.interop.residual`."""
    return deviation(first, second) / max(1.0, float(second.abs().max()))


def random_ends(*, seed):
    """Boundaries that no rule chose; the first byte ends a patch, as transformers always has it."""
    ends = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    ends[:, 0] = True
    return ends


def our_lm(shape):
    """A model of ours whose threshold lies amid the entropies of the text."""
    lm = ByteLM.new(LMConfig(blt=shape, entropy_model=ENTROPY, patch_rule=EntropyRule(threshold=5.0)))
    randomise(lm)
    lm.patch_rule = EntropyRule(threshold=amid(lm.entropy_model.entropies(IDS)))
    return lm.eval()


def with_epsilon(shape, epsilon):
    parts = ("local_encoder", "global_transformer", "local_decoder")
    stacks = {part: dataclasses.replace(getattr(shape, part), norm_epsilon=epsilon) for part in parts}
    return dataclasses.replace(shape, **stacks)


def written(lm, folder):
    write_transformers(lm, folder)
    model, report = BltForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()
