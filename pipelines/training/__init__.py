"""The training loop both stages share: order, optimizer, averages, checkpoints and logs."""
