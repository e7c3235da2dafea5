#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs in the root that compiles: builds a kernel with HMM, and test_hmm.ko with it, out of Debian's linux-source, for
# Debian builds 6.1 and 6.12 without DEVICE_PRIVATE. /kernel.config says what is in it.
# Usage: kernel.sh KERNEL-RELEASE SERIES, for example 6.12.107 6.12
set -eu
release=$1
source=linux-source-$2
modules=/build/installed/usr/lib/modules/$release
mkdir -p /build
cd /build
tar -xf "/usr/src/$source.tar.xz" --strip-components=1

make -s KCONFIG_ALLCONFIG=/kernel.config allnoconfig
grep '^CONFIG_' /kernel.config | while read -r line; do
    grep -qxF "$line" .config || {
        echo "kernel.sh: $source does not take $line: it knows no such option, or another one must be on first" >&2
        exit 1
    }
done

make -s -j"$(nproc)" bzImage modules
make -s INSTALL_MOD_PATH=/build/installed/usr INSTALL_MOD_STRIP=1 modules_install
cp arch/x86/boot/bzImage "$modules/vmlinuz"
