# SPDX-License-Identifier: Apache-2.0
"""What the serving process gives up: capabilities, programs, other processes, the network, files to write."""
