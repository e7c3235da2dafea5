# SPDX-License-Identifier: Apache-2.0
"""Measurements: programs that print figures. They assert nothing; what is written down says which one printed it."""
