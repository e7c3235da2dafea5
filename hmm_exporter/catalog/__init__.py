# SPDX-License-Identifier: Apache-2.0
"""What is observed, as data: probes, the tables they fill, the metrics made of them.

Everything else (BPF map layout, collector, ``--check``, documentation, tests) is derived from this
package or checked against it. No behaviour belongs here.
"""
