# SPDX-License-Identifier: Apache-2.0
"""All metrics of the catalogue, in the order in which they are exposed.

Data only; ``metrics.collector`` reads it. A metric exists when the probes that feed it are
attached: a figure that nobody counts is absent, not zero. Metrics about the exporter itself are
in ``metrics.exporter``, beside what they measure.
"""

from __future__ import annotations

from hmm_exporter.catalog.migration_metrics import MIGRATIONS
from hmm_exporter.catalog.mirror_metrics import RANGE_FAULTS, REST
from hmm_exporter.catalog.moved_metrics import DEVICE_RANGES, MOVED
from hmm_exporter.catalog.process_metrics import PROCESSES

METRICS = (*MIGRATIONS, *MOVED, *DEVICE_RANGES, *RANGE_FAULTS, *PROCESSES, *REST)
