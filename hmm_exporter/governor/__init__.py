# SPDX-License-Identifier: Apache-2.0
"""What watching costs the node, and what is let go of when that is more than it may."""
