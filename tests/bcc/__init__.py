# SPDX-License-Identifier: Apache-2.0
"""What only a bcc of a certain version can show, and so not the machine's own: ``make test-bcc``."""
