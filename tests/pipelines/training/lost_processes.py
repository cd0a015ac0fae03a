"""Runs in several processes, of which some fail, die or hang; see `test_lost_processes.py`."""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from pipelines.cli.command import run_command
from pipelines.training import heartbeat
from pipelines.training.distributed import (
    agree,
    is_main,
    mean_over_ranks,
    on_main,
    process_group,
    rank,
    require_shared,
)

LAST = int(os.environ["WORLD_SIZE"]) - 1
CPU = torch.device("cpu")


def signal_in_a_collective(number, receiver):
    mean_over_ranks(torch.ones(3))
    if rank() == receiver:
        os.kill(os.getpid(), number)
    mean_over_ranks(torch.ones(3))


def die_while_others_compute():
    if rank() == LAST:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(0.01)


def lose_the_network():
    def all_reduce(_):
        raise RuntimeError("no route to host")

    torch.distributed.all_reduce = all_reduce
    mean_over_ranks(torch.ones(3))


def fail():
    if rank() == LAST:
        raise ValueError("the image folder photos does not exist: check the path")
    agree({"everything": "alike"})


def fail_on_main():
    if is_main():
        time.sleep(1)  # the others are waiting by now
    on_main(lambda: Path("missing").read_text())


def be_busy():
    on_main(lambda: time.sleep(2 * heartbeat.SILENCE))
    mean_over_ranks(torch.ones(3))


MODES = {
    "die": lambda: signal_in_a_collective(signal.SIGKILL, LAST),
    "die while others compute": die_while_others_compute,
    "main dies": lambda: signal_in_a_collective(signal.SIGKILL, 0),
    "hang": lambda: signal_in_a_collective(signal.SIGSTOP, LAST),
    "main hangs": lambda: signal_in_a_collective(signal.SIGSTOP, 0),
    "terminate": lambda: signal_in_a_collective(signal.SIGTERM, LAST),
    "lose the network": lose_the_network,
    "fail": fail,
    "fail on main": fail_on_main,
    "be busy": be_busy,
    "differ": lambda: agree({"data": {"limit": 300 if rank() == LAST else 600}}, "give the same"),
    "share": lambda: require_shared(Path("runs") / "a"),
}


def main() -> None:
    heartbeat.SILENCE = 3.0
    if sys.argv[1:] == ["old torch"]:
        if os.environ["RANK"] == str(LAST):
            torch.__version__ = "2.9.0"
        sys.argv[1] = "be busy"
    with process_group(CPU):
        MODES[sys.argv[1]]()


if __name__ == "__main__":
    run_command(main)
