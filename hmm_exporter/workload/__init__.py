# SPDX-License-Identifier: Apache-2.0
"""What runs a process: the pod and container, or the job of Slurm, that its cgroup belongs to."""
