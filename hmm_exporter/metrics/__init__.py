# SPDX-License-Identifier: Apache-2.0
"""Rows to Prometheus: names for what the kernel knows by address, sums, expositions."""
