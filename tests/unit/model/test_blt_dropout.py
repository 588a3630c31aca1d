from blt.model import BLT, preset
from blt.nn.transformer import Layer


def test_shares_of_dropout_reach_every_layer_and_the_ngrams():
    blt = BLT(preset("tiny"))
    layers = [part for part in blt.modules() if isinstance(part, Layer)]
    blt.set_dropout(layers=0.1, ngrams=0.3)
    assert [layer.dropout for layer in layers] == [0.1] * 7
    assert blt.hash_embedding.dropout == 0.3
    blt.set_dropout()
    assert not any(layer.dropout for layer in layers)
    assert blt.hash_embedding.dropout == 0
