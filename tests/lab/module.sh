#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs in the root that compiles: makes test_hmm.ko for Debian's own kernel, out of Debian's linux-source of the very
# kernel that will boot (or, in the hours between two uploads to the archive, of the next patch release).
# Usage: module.sh KERNEL-RELEASE SERIES, for example 7.3.4+deb13-cloud-amd64 7.3
set -eu
release=$1
source=linux-source-$2
modules=/build/installed/usr/lib/modules/$release
mkdir -p /build/module "$modules/updates"
cd /build

# Only what is needed: the whole tree would take minutes to unpack.
tar -xf "/usr/src/$source.tar.xz" --strip-components=1 --wildcards \
    "$source/lib/test_hmm*" "$source/mm/gup_test.h" "$source/scripts/extract-vmlinux" "$source/tools/include" \
    "$source/tools/testing/selftests/mm" "$source/tools/testing/selftests/*.h"

# A vmlinux in the headers' folder makes kbuild give the module type information (BTF), as in-tree modules have it:
# without it BPF programs could not attach to the driver's own functions by fentry.
headers=$(readlink -f "/lib/modules/$release/build")
sh scripts/extract-vmlinux "/lib/modules/$release/vmlinuz" >"$headers/vmlinux"

cp lib/test_hmm.c lib/test_hmm_uapi.h module/
echo 'obj-m := test_hmm.o' >module/Makefile
make -C "$headers" M=/build/module modules
strip --strip-debug -o "$modules/updates/test_hmm.ko" module/test_hmm.ko
