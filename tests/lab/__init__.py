# SPDX-License-Identifier: Apache-2.0
"""The lab: kernels with the kernel's own HMM test driver, in an emulated machine.

Belongs in this package: what builds, boots, controls and loads that machine, and the tests that need it.
Does not belong here: tests that run on the machine's own kernel (tests/bpf) or on none (tests/unit).
README.md beside this file says how to use it.
"""
