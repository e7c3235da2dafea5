# SPDX-License-Identifier: Apache-2.0
"""Writes dashboards/grafana/*.json: `make dashboards`.

A dashboard is a module: rows of panels, in the order in which its questions are asked. ``promql`` has the words that
queries are made of, ``panels`` the kinds of panels, ``board`` what all dashboards have: variables, links, layout.
"""

from __future__ import annotations

from dashboards.grafana.generate import exporter, fleet, node, process
from dashboards.grafana.generate.board import Board

BOARDS: tuple[Board, ...] = (fleet.BOARD, node.BOARD, process.BOARD, exporter.BOARD)
