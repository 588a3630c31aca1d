"""The embedding of bytes and their n-grams."""

import torch

from blt.model.configuration import HashConfig
from blt.model.hash_embedding import HashEmbedding, ngram_hashes


def test_bytes_do_without_ngrams_by_the_share_that_is_dropped_and_only_in_training():
    embedding = HashEmbedding(HashConfig(num_rows=50), dim=16)
    embedding.initialise()
    byte_ids = torch.randint(4, 260, (4, 500))
    hashes = ngram_hashes(byte_ids, torch.arange(500).expand(4, -1), embedding.config)
    ngrams = embedding(byte_ids, hashes) - embedding.bytes(byte_ids)
    embedding.dropout = 0.25
    torch.manual_seed(0)
    found = embedding(byte_ids, hashes) - embedding.bytes(byte_ids)
    is_kept = found.abs().sum(-1) > 0
    assert abs(is_kept.float().mean() - 0.75) < 0.05
    torch.testing.assert_close(found[is_kept], ngrams[is_kept] / 0.75, atol=1e-6, rtol=1e-4)
    embedding.eval()
    torch.testing.assert_close(embedding(byte_ids, hashes) - embedding.bytes(byte_ids), ngrams)
