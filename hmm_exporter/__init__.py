# SPDX-License-Identifier: Apache-2.0
"""A Prometheus exporter for Linux HMM. The package's version stands here and nowhere else."""

__version__ = "0.1.0"
