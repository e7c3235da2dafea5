# SPDX-License-Identifier: Apache-2.0
"""What a fleet runs besides the daemon: units, image, manifests, rules, dashboards.

Each is judged by the tool that will read it in the field, in a version that its users have; `make test-fleet` fetches
the tools.
"""
