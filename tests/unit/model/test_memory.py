import pytest
import torch
from torch import nn
from torch.nn import functional as F

from blt.entropy import EntropyConfig
from blt.model import BLT, BLTConfig, LocalConfig, TransformerConfig
from blt.model.memory import activation_bytes, decoding_memory, training_memory
from blt.ops import only_references
from blt.patching import StaticRule, patch
from blt.training.optimizers import AdamWConfig, MuonConfig, build_optimizers
from blt.training.parallelize import recompute_layers

SMALL = BLTConfig(
    local_encoder=LocalConfig(dim=32, num_layers=1, num_heads=2, window=16),
    global_transformer=TransformerConfig(dim=48, num_layers=3, num_heads=2),
    local_decoder=LocalConfig(dim=32, num_layers=2, num_heads=2, window=16),
    queries_per_patch=2,
)
ENTROPY = EntropyConfig(dim=32, num_layers=3, num_heads=2, window=8)


def loss_of(model, byte_ids):
    logits = model(byte_ids, patch(byte_ids, StaticRule(length=4)))
    return F.cross_entropy(logits.flatten(0, 1), byte_ids.flatten())


@pytest.mark.parametrize(("is_sparse", "accumulation"), [(False, 1), (False, 2), (True, 1), (True, 2)])
@pytest.mark.parametrize(("name", "config"), [("adamw", AdamWConfig()), ("muon", MuonConfig())])
def test_weights_gradients_and_moments_are_those_of_a_step(name, config, is_sparse, accumulation):
    model = BLT(SMALL)
    model.hash_embedding.sparse_gradients = is_sparse
    optimizers = build_optimizers(model, config)
    for byte_ids in torch.randint(4, 260, (accumulation, 1, 64)):
        loss_of(model, byte_ids).backward()
    for optimizer in optimizers:
        optimizer.step()
    moments = [
        value
        for optimizer in optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.dim() > 0
    ]
    sparse = {"sparse_ngrams": is_sparse, "accumulation": accumulation}
    memory = training_memory(SMALL, optimizer=name, batch_bytes=64, mean_patch_bytes=4.0, **sparse)
    assert memory.weights == sum(weight.nbytes for weight in model.parameters())
    gradients = [weight.grad for weight in model.parameters()]
    held = sum(g._values().nbytes if g.is_sparse else g.nbytes for g in gradients)  # as autograd leaves it
    assert memory.gradients == held
    assert memory.optimizer == sum(moment.nbytes for moment in moments)


def bytes_kept(*, recompute=False, bfloat16=False):
    """Count what a forward pass keeps for the backward pass; under autocast without the copies of weights."""
    model, kept = BLT(SMALL), {}
    if recompute:
        recompute_layers(model)
    weights = {weight.data_ptr() for weight in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage, storage.nbytes())  # alive, so that no other takes its address
        return tensor

    byte_ids = torch.randint(4, 260, (2, 256))
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss = loss_of(model, byte_ids)
    assert loss.requires_grad  # alive until here
    linear = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
    copies = 2 * sum(weight.numel() for weight in linear) if bfloat16 else 0
    return sum(size for _, size in kept.values()) - copies


def test_activations_are_estimated_within_a_fifth_of_what_pytorch_keeps():
    native = bytes_kept()
    with only_references():
        by_pytorch = bytes_kept()
    memory = training_memory(SMALL, optimizer="adamw", batch_bytes=512, mean_patch_bytes=4.0)
    assert memory.activations == pytest.approx(by_pytorch, rel=0.2)
    assert native <= 1.01 * by_pytorch


def test_activations_in_bfloat16_are_estimated_within_a_tenth():
    with only_references():
        found = bytes_kept(bfloat16=True)
    planned = activation_bytes(SMALL, batch_bytes=512, mean_patch_bytes=4.0, bfloat16=True)
    assert planned == pytest.approx(found, rel=0.1)


def test_with_recomputation_layers_keep_their_inputs_and_one_layer_at_a_time_the_rest():
    with only_references():
        found = bytes_kept(recompute=True)  # before the backward pass, when no layer is computed again yet
    planned = activation_bytes(SMALL, batch_bytes=512, mean_patch_bytes=4.0, recompute=True)
    whole = activation_bytes(SMALL, batch_bytes=512, mean_patch_bytes=4.0)
    layers = max(
        (9 * SMALL.global_transformer.dim + 4 * SMALL.global_transformer.feed_forward_width) / 4.0,
        11 * SMALL.local_decoder.dim + 4 * SMALL.local_decoder.feed_forward_width,
    )
    assert planned - 4 * 512 * layers == pytest.approx(found, rel=0.1)
    assert planned < 0.6 * whole


def test_training_holds_the_frozen_entropy_model_but_neither_its_gradients_nor_its_moments():
    with_it, without = (
        training_memory(SMALL, optimizer="adamw", batch_bytes=64, mean_patch_bytes=4.0, entropy_model=entropy_model)
        for entropy_model in (ENTROPY, None)
    )
    assert with_it.weights > without.weights
    assert with_it.total - without.total == with_it.weights - without.weights


def test_caches_grow_with_the_text_only_by_one_entry_per_patch():
    sizes = [decoding_memory(SMALL, context_bytes=n, mean_patch_bytes=4.0, entropy_model=ENTROPY) for n in (400, 4000)]
    per_patch = 2 * SMALL.global_transformer.num_layers * SMALL.global_transformer.dim
    assert sizes[1].caches - sizes[0].caches == 4 * per_patch * 900
    assert sizes[1].weights == sizes[0].weights
    half = decoding_memory(SMALL, context_bytes=400, mean_patch_bytes=4.0, entropy_model=ENTROPY, bytes_per_number=2)
    assert half.total * 2 == sizes[0].total
