#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The lab machine's first process: mounts what a BPF program and its user space expect, brings the network up, loads the
# HMM test driver, and starts the guest agent, the one way in. No service manager: booting takes four seconds, not twenty.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null # the kernel may have done it already
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null # the stock kernel alone has it
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/lab

echo lab >/proc/sys/kernel/hostname
modprobe -a virtio_net test_hmm
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up

# The port has a symbolic name only where udev runs, so the device is named as the kernel names it.
qemu-ga --method virtio-serial --path /dev/vport1p1 --statedir /run/lab --pidfile /run/lab/agent.pid &
# As first process, this shell inherits and reaps what the tests leave behind, too.
wait "$!"
echo "lab: the guest agent ended with status $?"
echo b >/proc/sysrq-trigger
