# SPDX-License-Identifier: Apache-2.0
"""What this kernel is: its types, its symbols, its abilities. Reads files, changes nothing."""
