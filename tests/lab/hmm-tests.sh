#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs in the root that compiles, after module.sh or kernel.sh unpacked the kernel's source into /build: makes a static
# hmm-tests, for nothing that it needs has to be in the root that boots then.
set -eu
folder=/build/tools/testing/selftests
programs=/build/installed/usr/local/bin
mkdir -p $programs
cd $folder/mm 2>/dev/null || cd $folder/vm # its name before 6.4

# The harness takes arguments since 6.4.
grep -q argv_check ../kselftest_harness.h || {
    sed -i '1i #define main harness_main' hmm-tests.c
    cat /select.c >>hmm-tests.c
}

# Since 7.x it calls them, and the second calls the first.
helpers=
if grep -q '"hugepage_settings.h"' hmm-tests.c; then
    helpers="vm_util.c hugepage_settings.c"
fi
# shellcheck disable=SC2086 # a list of files
gcc -O2 -static -D_GNU_SOURCE= -DPAGE_SIZE=4096 -I.. -I. -I/build -I/build/tools/include \
    -o $programs/hmm-tests hmm-tests.c $helpers -lpthread
strip $programs/hmm-tests
