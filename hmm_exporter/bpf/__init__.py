# SPDX-License-Identifier: Apache-2.0
"""The in-kernel half: the programs, how they are compiled, loaded, attached, and their maps read."""
