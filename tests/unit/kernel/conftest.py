# SPDX-License-Identifier: Apache-2.0
"""Properties may take their time: on a busy machine a deadline says nothing about the code."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
