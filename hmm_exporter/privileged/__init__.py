# SPDX-License-Identifier: Apache-2.0
"""The small process that keeps its rights when the serving one gives them up, and how the two speak."""
