# SPDX-License-Identifier: Apache-2.0
"""What is looked at: one folder for each program that shows it."""
