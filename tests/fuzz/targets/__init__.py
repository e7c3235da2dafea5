# SPDX-License-Identifier: Apache-2.0
"""One target a module: its docstring says what must hold, and its ``TARGET`` tries one input."""
