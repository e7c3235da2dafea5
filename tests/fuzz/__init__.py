# SPDX-License-Identifier: Apache-2.0
"""Fuzzers of everything that reads what others wrote. Each target says what must hold for any input at all."""
