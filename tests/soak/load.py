# SPDX-License-Identifier: Apache-2.0
"""What the exporter has to watch: the simulator's scenarios and short processes, as fast as both go, and their books.

Belongs here: what is issued, and how much it was. Does not belong here: what became of it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections import Counter
from types import TracebackType
from typing import Any

from tests.process import SIMULATOR, churn

THREADS = 2
FASTEST = 1_000_000
"""Events a second that are asked for; no machine gets there."""
CHURN = 5_000
"""Processes in one run of the simulator."""

#: Events that have metrics of both tiers, by the words in which the simulator's scenarios sum them up, and the kinds in
#: its books.
KINDS = {
    "migrations": "migrations",
    "range faults": "range_faults",
    "exclusive pages": "device_exclusives",
    "notifier inserts": "notifier_inserts",
}
METRICS = {
    "migrations": ("hmm_migrations_started_total", "hmm_process_migrations_total"),
    "range faults": ("hmm_range_faults_total", "hmm_process_range_faults_total"),
    "exclusive pages": ("hmm_device_exclusive_total", "hmm_process_device_exclusive_total"),
    "notifier inserts": ("hmm_interval_notifier_inserts_total", "hmm_process_interval_notifier_inserts_total"),
}


class Load:
    """From `with` to `stop`; other processes get the CPU first, where they want it."""

    def __init__(self) -> None:
        self.issued: Counter[str] = Counter()
        """Whole after `stop`."""
        self.processes = 0
        """Short ones that there were."""
        self._stopped = threading.Event()
        self._churn = threading.Thread(target=self._churn_on)
        self._problem: BaseException | None = None

    def __enter__(self) -> Load:
        scenarios = subprocess.run([SIMULATOR, "list"], check=True, capture_output=True, text=True).stdout
        # All of them all the time: a day's changes would look like growth.
        chosen = [word for line in scenarios.splitlines() for word in ("--scenario", line.split()[0])]
        command = ["nice", "-n", "10", str(SIMULATOR), "run", "--rate", str(FASTEST), "--threads", str(THREADS)]
        self._scenarios = subprocess.Popen([*command, *chosen], stdout=subprocess.PIPE, text=True)
        self._churn.start()
        return self

    def stop(self) -> None:
        """Everything that was issued is in the maps afterwards."""
        self._stopped.set()
        self._churn.join()
        self._scenarios.send_signal(signal.SIGTERM)
        summary = self._scenarios.communicate()[0]
        assert self._problem is None, self._problem
        assert self._scenarios.returncode == 0, summary
        for kind in KINDS:
            found = re.search(rf"(\d+) {kind}\b", summary)
            assert found, summary
            self.issued[kind] += int(found[1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._churn.join()
        if self._scenarios.poll() is None:
            self._scenarios.kill()
            self._scenarios.wait()

    def _churn_on(self) -> None:
        try:
            while not self._stopped.is_set():
                # Names have seven digits; by the time that one comes again its row has ended long ago.
                self._enter(churn(CHURN, first=self.processes % 4_000_000, threads=1))
                self.processes += CHURN
        except BaseException as error:
            self._problem = error

    def _enter(self, books: dict[str, Any]) -> None:
        for kind, name in KINDS.items():
            self.issued[kind] += sum(row["count"] for row in books[name])
