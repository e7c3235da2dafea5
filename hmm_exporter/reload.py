# SPDX-License-Identifier: Apache-2.0
"""A new configuration while it runs: read, compared, taken whole or not at all.

Which options can change without a restart is said where they are declared (``config_rule.Rule.live``). How one of them
takes effect is its own room's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter import log
from hmm_exporter.config import Config, ConfigError
from hmm_exporter.config_value import options, value_of
from hmm_exporter.privileged.message import Refused

_log = log.Logger(__name__)


class Reload:
    """Takes the place of what was configured; one at a time. A collector of what became of the latest."""

    def __init__(self, config: Config, read: Callable[[], Config], take: Callable[[Config], None]) -> None:
        """``read`` raises ConfigError. ``take`` puts what is live into effect, or raises Refused, nothing changed."""
        self._config = config
        self._read = read
        self._take = take
        self._one = threading.Lock()
        self._asked = False
        self._successful = True
        self._success_time = time.time()

    def soon(self) -> None:
        """In a thread of its own: compiling takes seconds, and the watchdog wants to be answered.

        However often it is asked for while one is under way, one more follows.
        """
        if self._asked:
            return
        self._asked = True
        try:
            threading.Thread(target=self._when_asked, name="reload", daemon=True).start()
        except RuntimeError as error:  # no more threads
            self._asked = False
            _log.error("configuration not reloaded", reason=str(error))

    def _when_asked(self) -> None:
        with self._one:
            self._asked = False  # who asks from now on may mean a newer file
            self._reload()

    def __call__(self) -> str:
        """Reload now. Why it was refused, in a line that is in the log, too; empty if all is well."""
        if not self._one.acquire(blocking=False):
            return "a reload is under way"
        try:
            return self._reload()
        finally:
            self._one.release()

    def _reload(self) -> str:
        try:
            config = self._read()
            changed = _changed(self._config, config)
            self._take(config)
        except (ConfigError, Refused) as refusal:
            self._successful = False
            _log.error("configuration not reloaded, the old one stays", reason=str(refusal))
            return str(refusal)
        except Exception:
            self._successful = False
            _log.exception("configuration not reloaded: internal error, please report it")
            return "internal error; see the log"
        self._config = config
        self._successful, self._success_time = True, time.time()
        _log.info("configuration reloaded", changed=" ".join(changed))
        return ""

    def collect(self) -> Iterator[Family]:
        yield GaugeMetricFamily(
            "hmm_exporter_config_last_reload_successful",
            "Whether the latest attempt to reload the configuration succeeded; 1 before the first.",
            value=int(self._successful),
        )
        yield GaugeMetricFamily(
            "hmm_exporter_config_last_reload_success_timestamp_seconds",
            "When the configuration was last reloaded, or read at the start.",
            value=self._success_time,
        )


def _changed(old: Config, new: Config) -> Sequence[str]:
    """Keys of the options that differ. Raises Refused if a change of one needs a restart."""
    changed = [option for option in options() if value_of(old, option.key) != value_of(new, option.key)]
    restart = [option.key for option in changed if not option.rule.live]
    if restart:
        raise Refused(f"{', '.join(restart)}: a change needs a restart; nothing was changed")
    return [option.key for option in changed]
