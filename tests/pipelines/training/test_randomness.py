import pytest
import torch

from pipelines.training.randomness import ExampleOrder, derive_seed


def test_derive_seed_differs_between_neighbouring_addresses():
    seeds = {
        derive_seed(seed, "vqvae", step, rank)
        for seed in range(5)
        for step in range(50)
        for rank in range(4)
    }
    assert len(seeds) == 5 * 50 * 4


def test_derive_seed_fits_every_generator():
    assert all(0 <= derive_seed("fit", number) < 2**63 for number in range(1000))


def test_derive_seed_stays_the_same_over_versions():
    # From the shell: printf 0/vqvae/1 | b2sum -l 64, without its last bit. Another hash would
    # silently change what every seed means.
    assert derive_seed(0, "vqvae", 1) == 5426749811577116331


@pytest.mark.parametrize("batch_size", [3, 16])
def test_order_sees_every_example_once_per_epoch(batch_size):
    order = ExampleOrder(num_examples=10, batch_size=batch_size, seed=0)
    stream = torch.cat([order.batch(step) for step in range(30)])
    for epoch in range(len(stream) // 10):
        assert sorted(stream[10 * epoch : 10 * epoch + 10].tolist()) == list(range(10))


def test_order_gives_full_batches_from_a_set_smaller_than_a_batch():
    counts = ExampleOrder(num_examples=3, batch_size=12, seed=0).batch(0).bincount()
    assert counts.tolist() == [4, 4, 4]


def test_order_of_a_step_does_not_depend_on_the_steps_asked_before():
    walked, asked = (ExampleOrder(num_examples=10, batch_size=4, seed=7) for _ in range(2))
    for step in range(9):
        walked.batch(step)
    assert walked.batch(9).equal(asked.batch(9))


def test_order_differs_between_epochs_and_between_seeds():
    first = ExampleOrder(num_examples=100, batch_size=100, seed=0)
    second = ExampleOrder(num_examples=100, batch_size=100, seed=1)
    assert not first.batch(0).equal(first.batch(1))
    assert not first.batch(0).equal(second.batch(0))


def test_order_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    ExampleOrder(num_examples=10, batch_size=4, seed=7).batch(0)
    assert torch.rand(3).equal(expected)


def test_order_refuses_an_empty_set():
    with pytest.raises(ValueError, match="must hold at least 1 example, got 0"):
        ExampleOrder(num_examples=0, batch_size=4, seed=0)
