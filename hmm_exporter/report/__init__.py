# SPDX-License-Identifier: Apache-2.0
"""``hmm-exporter report``: what hmm-snoop does at a terminal, from the daemon's own programs and metrics."""
