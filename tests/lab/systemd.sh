#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs in the root that compiles, and writes what a machine needs whose first process is systemd instead of init.sh: the
# guest agent, the driver and the network in a target of its own. All else that systemd would do on a first boot is off,
# for an emulated processor takes ten seconds for it.
set -eu
units=/build/installed/etc/systemd/system
mkdir -p "$units" "$units.conf.d"

# A machine that has none is on its first boot, and enables whatever there is.
echo 5d2fd1d3e0b94a3c9a2f6c1b7e8d4f60 >/build/installed/etc/machine-id
# The console is a file, and no place for a spinner.
printf '[Manager]\nShowStatus=no\n' >"$units.conf.d/lab.conf"

cat >"$units/lab.target" <<'END'
[Unit]
Requires=basic.target
Wants=lab-agent.service
AllowIsolate=yes
END
cat >"$units/lab-agent.service" <<'END'
[Service]
RuntimeDirectory=lab
# What init.sh does, and systemd not.
ExecStartPre=modprobe -a virtio_net test_hmm
ExecStartPre=ip address add 10.0.2.15/24 dev eth0
ExecStartPre=ip link set eth0 up
ExecStart=qemu-ga --method virtio-serial --path /dev/vport1p1 --statedir /run/lab --pidfile /run/lab/agent.pid
# The commands that it starts are tests, and may be anything.
LimitCORE=0
TasksMax=infinity
END
ln -s lab.target "$units/default.target"
for unit in ldconfig.service qemu-guest-agent.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-modules-load.service systemd-udev-trigger.service systemd-update-done.service timers.target; do
    ln -s /dev/null "$units/$unit"
done
