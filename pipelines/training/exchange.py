"""Exchange of JSON values between the processes of a run."""

from __future__ import annotations

import json
import os
import reprlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from pipelines.training.heartbeat import Heartbeat

T = TypeVar("T")

_TIME_TO_MEET = timedelta(minutes=5)
_POLL = timedelta(seconds=1)
_MOST_DIFFERENCES = 3


class Exchange:
    """Exchanges JSON values through the run's key-value store.

    Every process makes the same calls in the same order. There is no time limit: the heartbeat ends
    the waiting if a process is lost, however long another one works. `hosts` are the names of the
    machines, by rank.
    """

    def __init__(self, store: Store, rank: int, hosts: Sequence[str]) -> None:
        self.store = store
        self.rank = rank
        self.size = len(hosts)
        self.heartbeat = Heartbeat(store, rank, hosts)
        self._count = 0

    def on_main(self, work: Callable[[], T]) -> T:
        """Calls `work` on rank 0 and returns its result, a JSON value, in every process.

        If `work` raises, so do the other processes: OSError for an error of the system, else
        RuntimeError, with the same message.
        """
        key = self._next_key()
        if self.rank == 0:
            try:
                result = work()
            except Exception as error:
                self.store.set(key, json.dumps({"error": _reasons(error)}))
                raise
            self.store.set(key, json.dumps({"result": result}))
            return result
        answer: dict[str, Any] = json.loads(self._get(key))
        if "error" in answer:
            reasons = answer["error"]
            raise OSError(*reasons) if len(reasons) > 1 else RuntimeError(*reasons)
        return cast(T, answer["result"])

    def collect(self, value: Any) -> list[Any]:
        """Returns the JSON `value` of each process by rank, on rank 0; an empty list elsewhere."""
        key = self._next_key()
        self.store.set(f"{key}/{self.rank}", json.dumps(value))
        if self.rank != 0:
            return []
        return [json.loads(self._get(f"{key}/{rank}")) for rank in range(self.size)]

    def barrier(self) -> None:
        """Waits until every process has made this call."""
        self.collect(None)
        self.on_main(lambda: None)

    def agree(self, record: Mapping[str, Any], advice: str) -> None:
        """Checks that all processes hold the JSON values of rank 0, nested or not.

        The message of the ValueError is the same everywhere, and ends with `advice`.
        """
        records = self.collect(record)
        difference = self.on_main(lambda: self._first_difference(records))
        if difference is not None:
            raise ValueError(f"all processes of a run must have the same {difference}: {advice}")

    def _first_difference(self, records: list[Any]) -> str | None:
        own, *others = (dict(_flat(record)) for record in records)
        describe = self.heartbeat.describe
        for rank, other in enumerate(others, 1):
            differences = [
                f"{name}, which is {_short(other.get(name))} on {describe(rank)} and "
                f"{_short(own.get(name))} on {describe(0)}"
                for name in own | other
                if own.get(name) != other.get(name)
            ]
            if differences:
                return "; ".join(differences[:_MOST_DIFFERENCES])
        return None

    def _get(self, key: str) -> bytes:
        while True:
            try:
                self.store.wait([key], _POLL)
                return self.store.get(key)
            except dist.DistStoreError as error:  # not there yet
                if self.heartbeat.verdict is not None:
                    raise dist.DistNetworkError(self.heartbeat.verdict) from error

    def _next_key(self) -> str:
        self._count += 1
        return f"message/{self._count}"


def meet() -> tuple[Store, int, list[str]]:
    """Waits for the processes that torchrun's environment describes, at most five minutes.

    Returns their key-value store, the number of this process, and the name of the machine of each.
    """
    try:
        whole, rank, size = next(rendezvous("env://", timeout=_TIME_TO_MEET))
        store = PrefixStore("run", whole)
        if rank == 0:
            store.set("size", str(size))
        size = int(store.get("size"))  # they may differ in it, as the first exchange will show
        if rank >= size:
            raise ValueError(f"RANK must be below the WORLD_SIZE of rank 0, got {rank} and {size}")
        store.set(f"host/{rank}", socket.gethostname())
        hosts = store.multi_get([f"host/{other}" for other in range(size)])
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RuntimeError(
            f"all processes must connect to {place} within {_TIME_TO_MEET.seconds} seconds, but "
            "some have not: start them together, each with this address and a RANK of its own"
        ) from error
    return whole, rank, [host.decode() for host in hosts]


def _reasons(error: Exception) -> list[Any]:
    """Returns the arguments that rebuild an error: a message, or errno, message and file."""
    if isinstance(error, OSError) and error.strerror is not None and error.filename is not None:
        return [error.errno, error.strerror, os.fsdecode(error.filename)]
    return [str(error)]


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `{"a": {"b": 1}}` as `("a.b", 1)`."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: Any) -> str:
    """Returns a value as text, a long one without its middle."""
    abbreviation = reprlib.Repr()
    abbreviation.maxstring = abbreviation.maxother = 300
    return abbreviation.repr(value)
