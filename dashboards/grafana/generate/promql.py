# SPDX-License-Identifier: Apache-2.0
"""The words that queries are made of: what is selected, rates, sums, ratios, quantiles.

Belongs here: PromQL that more than one panel needs. Does not belong here: how an answer is shown.
"""

from __future__ import annotations

JOB = 'job="hmm-exporter"'
# All is ".*", which a series matches that does not have the label: a single cluster has no cluster, a process outside
# pods no pod.
NODE = 'cluster=~"$cluster", node=~"$node"'
OWNER = f'{NODE}, pgmap_owner=~"$pgmap_owner"'
PROCESS = f'{NODE}, namespace=~"$namespace", pod=~"$pod", slurm_job=~"$slurm_job", comm=~"$comm"'
EXPORTER = f"{JOB}, {NODE}"

TO_DEVICE, TO_HOST = 'direction=~".+_to_device"', 'direction=~".+_to_host"'
EVICTED = 'direction="device_to_host", trigger="kthread"'
#: nouveau and test_hmm empty a device by ranges when it goes. The same is in deploy/prometheus/recording.yaml.
NOT_TEARDOWN = 'device!~"(nouveau_dmem|hmm_dmirror)-.+"'

PER_NODE = "cluster, node"
PER_PROCESS = "cluster, node, namespace, pod, slurm_job, comm"

#: Legends of a process: on one node, and on several.
WHO = "{{comm}} {{namespace}} {{pod}} {{slurm_job}}"
WHO_AND_WHERE = f"{WHO} {{{{node}}}}"

#: Grafana's windows: enough scrapes for a rate at each point of a graph; the time that is shown.
POINT, SHOWN = "$__rate_interval", "$__range"


def rate(metric: str, selected: str, window: str = POINT) -> str:
    return f"rate({metric}{{{selected}}}[{window}])"


def increase(metric: str, selected: str, window: str = POINT) -> str:
    return f"increase({metric}{{{selected}}}[{window}])"


def total(vector: str, by: str = "") -> str:
    return f"sum by ({by}) ({vector})" if by else f"sum({vector})"


def rates(metric: str, selected: str, by: str = "", window: str = POINT) -> str:
    return total(rate(metric, selected, window), by)


def ratio(part: str, whole: str) -> str:
    """No answer where there is nothing to take a part of, instead of NaN."""
    return f"{part} / ({whole} > 0)"


def share(part: str, whole: str, by: str) -> str:
    """Parts by a label that the whole does not have."""
    return f"{part} / ignoring({by}) group_left () ({whole} > 0)"


def quantile(level: float, metric: str, selected: str, by: str = "") -> str:
    """Without the NaN of a histogram in which nothing was observed."""
    keys = f"{by}, le" if by else "le"
    return f"histogram_quantile({level}, {total(rate(f'{metric}_bucket', selected), keys)}) >= 0"


def buckets(metric: str, selected: str) -> str:
    """For a heatmap."""
    return total(increase(f"{metric}_bucket", selected), "le")


def not_zero(vector: str) -> str:
    return f"{vector} > 0"


RETURNED, ATTEMPTS = "hmm_migration_returned_bytes_total", "hmm_range_fault_attempts_total"
"""There at 0 from the first scrape on, where it is measured at all."""


def or_zero(vector: str, measured: str, by: str = "", selected: str = NODE) -> str:
    """Of a ratio, where one figure is shown: the newest that there is would stay long after its cause has ended.

    Nothing where the metric `measured` is not there: what cannot be seen is not 0.
    """
    count = f"count by ({by})" if by else "count"
    return f"{vector} or 0 * {count} ({measured}{{{selected}}})"


def top(number: int, vector: str) -> str:
    return f"topk({number}, {vector})"


def thrash_ratio(selected: str, by: str = "", window: str = POINT) -> str:
    """Brought back by a CPU fault within thrash_window of arrival, over what was copied to a device."""
    return ratio(
        rates(RETURNED, selected, by, window),
        rates("hmm_migration_moved_bytes_total", f"{selected}, {TO_DEVICE}", by, window),
    )


def process_thrash_ratio(selected: str, by: str = "", window: str = POINT) -> str:
    """The same, where it can be seen: one job's few megabytes vanish among the gigabytes that others read in."""
    return ratio(
        rates("hmm_process_returned_bytes_total", selected, by, window),
        rates("hmm_process_moved_bytes_total", f"{selected}, {TO_DEVICE}", by, window),
    )


def thrashing(selected: str, window: str = POINT) -> str:
    """By process, without those of which less than sixteen pages a second come back: a ratio of nearly nothing."""
    returned = rates("hmm_process_returned_bytes_total", selected, PER_PROCESS, window)
    return f"{process_thrash_ratio(selected, PER_PROCESS, window)} and {returned} > 65536"


def worst(vector: str, by: str = "") -> str:
    return f"max by ({by}) ({vector})" if by else f"max({vector})"


def exporters_down(selected: str) -> str:
    """0 needs a target: with none at all it is 1, as in the alert. One series at all times, unlike absent()."""
    return f"sum(up{{{selected}}} == bool 0) or vector(1)"


def ebusy_ratio(selected: str, by: str = "", window: str = POINT) -> str:
    """One meaning on every kernel: a lock that was dropped (7.3 and newer) is progress, not a lost race."""
    return ratio(
        rates("hmm_range_fault_ebusy_total", f'{selected}, reason!="lock_dropped"', by, window),
        rates(ATTEMPTS, selected, by, window),
    )


def unmoved_share(selected: str) -> str:
    """By reason, of what was there to move: drivers ask for whole ranges again and again, and most has moved before."""
    unmoved, not_there = "hmm_migration_unmoved_bytes_total", "not_selected|not_read"
    left_out = rates(unmoved, f'{selected}, reason=~"{not_there}"')
    return share(
        rates(unmoved, f'{selected}, reason!~"{not_there}"', "reason"),
        f"{rates('hmm_migration_requested_bytes_total', selected)} - ({left_out} or vector(0))",
        "reason",
    )


def evicted(selected: str, by: str = "") -> str:
    """xe and nvidia-uvm evict by device range, amdgpu by a worker's migrations."""
    ranges = rate("hmm_device_range_moved_bytes_total", f"{selected}, {NOT_TEARDOWN}")
    return total(
        f"{ranges} or {rate('hmm_migration_moved_bytes_total', f'{selected}, {EVICTED}')}",
        by,
    )


def oversubscription(selected: str, by: str = "") -> str:
    return ratio(evicted(selected, by), rates("hmm_migration_moved_bytes_total", f"{selected}, {TO_DEVICE}", by))
