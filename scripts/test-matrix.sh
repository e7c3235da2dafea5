#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The lab's tests on each of its kernels in turn, whatever becomes of one; then a line for each.
set -u
output=$(mktemp)
summary=$(mktemp)
trap 'rm -f "$output" "$summary"' EXIT
result=0

for kernel in $(.venv/bin/python -m tests.lab.recipe); do
	echo "== $kernel"
	KERNEL=$kernel .venv/bin/pytest tests/lab --color=no 2>&1 | tee "$output"
	# pytest's closing line: "=== 1 failed, 2 passed in 4.56s ==="
	counts=$(sed -n 's/^=* \([0-9].* in [0-9.]*s\).*/\1/p' "$output" | tail -n 1)
	case $counts in
	*failed* | *error* | "") result=1 ;;
	esac
	echo "$kernel ${counts:-did not run to the end}" >>"$summary"
done

echo "== all kernels"
cat "$summary"
exit $result
