# SPDX-License-Identifier: Apache-2.0
"""Tier 2: real BPF programs on this machine's kernel, as uprobes on the simulator. Needs root and bcc."""
