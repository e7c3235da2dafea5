# SPDX-License-Identifier: Apache-2.0
"""Dashboards for Grafana, as files to import, and the program that writes them."""
