"""Heartbeat that tells a lost process from a busy one.

A collective waits for every process of a run. If one of them is stopped, or its machine is lost,
the others would wait until a time limit that has to allow for the longest computation. A thread
that beats in the run's key-value store stops with its process, but not while that computes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

INTERVAL = 0.5
"""Seconds between two beats of a process."""
SILENCE = 20.0
"""Seconds without a beat after which a process counts as hung. torchrun takes 30 more to end a
process that is stopped; the whole run is to end within a minute."""
_GRACE = 3.0
"""Seconds a process has to end by itself once another is lost. Also the time to find out which one
has ended: a busy machine may delay a beat or two."""
_VERDICT = "verdict"


class Heartbeat:
    """Beats for this process, and ends it once another one stops beating.

    Rank 0 listens to all, the others to rank 0. The first process that misses another or fails
    itself writes the reason into the store (the verdict), and all processes end with the same
    sentence: By an error of the main thread or, if that waits in a collective, from here. `hosts`
    are the names of the machines, by rank.
    """

    def __init__(self, store: Store, rank: int, hosts: Sequence[str]) -> None:
        self._store = store
        self._rank = rank
        self._hosts = hosts
        self._others = [other for other in range(len(hosts)) if other != rank]
        self._listened_to = self._others if rank == 0 else [0]
        self._beats = dict.fromkeys(self._listened_to, b"")
        self._verdict: str | None = None
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, args=[store.clone()], daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]

    @property
    def verdict(self) -> str | None:
        """Reason for the end of the run, as a sentence; None while it continues."""
        return self._verdict

    def start(self) -> None:
        """Starts the threads; every process must start within `SILENCE` seconds."""
        self._store.set(_beat_key(self._rank), "0")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads; one left in a call of the store could abort the interpreter's end."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=2 * INTERVAL)

    def describe(self, rank: int) -> str:
        """Returns `rank 1 (on node-b)`."""
        return f"rank {rank} (on {self._hosts[rank]})"

    def report(self, verdict: str) -> str:
        """Ends the run for the reason `verdict`; returns an earlier verdict if there is one."""
        self._publish(self._store, verdict)
        if self._rank == 0:  # the store may end with this process: let the others read it
            time.sleep(3 * INTERVAL)
        return self._verdict or verdict

    def find_ended(self) -> int | None:
        """Returns the first rank that has stopped beating, or None; takes some seconds.

        A verdict of another process ends the search.
        """
        try:
            first = _read_beats(self._store, self._others)
            deadline = time.monotonic() + _GRACE
            while time.monotonic() < deadline and self._verdict is None:
                time.sleep(INTERVAL)
            last = _read_beats(self._store, self._others)
        except dist.DistError:  # the store has ended with its process, which is rank 0's
            return 0 if self._rank else None
        return next((rank for rank in self._others if first[rank] == last[rank]), None)

    def _beat(self, store: Store) -> None:
        beats = 0
        while not self._stopped.wait(INTERVAL):
            beats += 1
            try:
                store.set(_beat_key(self._rank), str(beats))
                if self._verdict is not None:
                    self._publish(store, self._verdict)
                elif store.check([_VERDICT]):
                    self._verdict = store.get(_VERDICT).decode()
                self._beats = _read_beats(store, self._listened_to)
            except dist.DistError:
                continue  # out of reach: `_watch` counts the missing beats

    def _publish(self, store: Store, verdict: str) -> None:
        try:
            self._verdict = store.compare_set(_VERDICT, "", verdict).decode()
        except dist.DistError:  # the store has ended with its process
            self._verdict = self._verdict or verdict

    def _watch(self) -> None:
        """Counts silent turns, which do not pass while this process itself is stopped.

        A second thread: the calls of the beating one may wait for a store that does not answer.
        """
        silent: dict[int, int] = {}
        heard: dict[int, bytes] = {}
        while self._verdict is None:
            if self._stopped.wait(INTERVAL):
                return
            beats = self._beats
            silent = {r: silent.get(r, 0) + 1 if heard.get(r) == b else 0 for r, b in beats.items()}
            heard = beats
            hung = [rank for rank, turns in silent.items() if turns * INTERVAL >= SILENCE]
            if hung and self._verdict is None:
                self._verdict = (
                    f"{self.describe(hung[0])} has not answered for {SILENCE:.0f} seconds: end it "
                    "if it is still there, then start the same command with --resume"
                )
        if not self._stopped.wait(_GRACE):
            sys.stderr.write(f"error: {self._verdict}\n")
            sys.stderr.flush()
            os._exit(1)  # the main thread waits for a process that will not answer


def _beat_key(rank: int) -> str:
    return f"beat/{rank}"


def _read_beats(store: Store, ranks: Sequence[int]) -> dict[int, bytes]:
    """Returns the number of beats of each rank, as text; each must have beaten once."""
    return dict(zip(ranks, store.multi_get([_beat_key(rank) for rank in ranks]), strict=True))
