#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tries the simulator out without any probe: `make check`. Prints one line a check.
set -eu

build=$1
sim=$build/hmm-simulator
work=$build/check
mkdir -p "$work"

fail()
{
	echo "FAILED: $*" >&2
	exit 1
}

# Everything but the times, which no two runs share.
books()
{
	sed '/^,"timing"/,$d'
}

# Events of a kind in the books of stdin.
events()
{
	awk -v kind="\"$1\":[" '
		index($0, kind) == 1 { inside = 1; next }
		/^\]/ { inside = 0 }
		inside && match($0, /"count":[0-9]+/) { sum += substr($0, RSTART + 8, RLENGTH - 8) }
		END { print sum + 0 }'
}

"$sim" exact --events 3007 | books > "$work/books"
"$sim" exact --events 3007 | books | cmp - "$work/books" || fail "two runs differ"
for threads in 1 2 7 64; do
	"$sim" exact --events 3007 --threads $threads | books | cmp - "$work/books" || fail "$threads threads differ"
done
echo "exact: the same books twice, and by 1, 2, 4, 7 and 64 threads"

"$sim" exact --events 3007 --seed 2 | books | cmp -s - "$work/books" && fail "the seed does not matter"
for kind in migrations range_faults device_exclusives device_exclusive_restores notifier_inserts \
	notifier_removes dma_maps dma_unmaps; do
	[ "$(events $kind < "$work/books")" = 3007 ] || fail "$kind: not as many as asked for"
done
for kind in invalidations migration_ptes; do
	outside=$(grep -v '"inside":"[^"]' "$work/books" | events $kind)
	[ "$outside" = 3007 ] || fail "$kind outside HMM calls: $outside"
done
succeeded()
{
	sed '/"count"/{/"errno":""/!d}' "$work/books" | events "$1"
}
[ "$(succeeded range_faults)" = "$(succeeded range_fault_attempts)" ] || fail "range faults and their attempts"
echo "exact: as many events of each main kind as asked for"

# The sum of a figure over all migrations.
figure()
{
	sed -n '/^"migrations":/,/^\]/p' "$work/books" |
		awk -v name="\"$1\":" 'match($0, name "[0-9]+") { sum += substr($0, RSTART + length(name), RLENGTH - length(name)) }
			END { printf "%.0f\n", sum }'
}
unmoved=0
for name in host_to_host host_to_device device_to_host device_to_device zero_filled not_selected busy no_destination \
	unfilled commit_failed not_read; do
	[ "$(figure $name)" -gt 0 ] || fail "no migration has $name"
	unmoved=$((unmoved + $(figure $name)))
done
[ "$(figure bytes)" = $unmoved ] || fail "$(figure bytes) bytes asked for, $unmoved accounted for"
for name in huge_host_to_host huge_host_to_device huge_device_to_host huge_device_to_device aborted partial huge; do
	[ "$(figure $name)" -gt 0 ] || fail "no migration has $name"
done
for cause in raced own_fault lock_dropped; do
	grep -q "\"cause\":\"$cause\",\"errno\":\"EBUSY\"" "$work/books" || fail "no attempt ended as $cause"
done
for result in first again unknown; do
	grep -q "\"result\":\"$result\"" "$work/books" || fail "nothing returned as $result"
done
echo "exact: every byte asked for is accounted for, in every way there is"

"$sim" churn --processes 3007 | books > "$work/churn"
for threads in 1 2 7; do
	"$sim" churn --processes 3007 --threads $threads | books | cmp - "$work/churn" || fail "churn: $threads threads differ"
done
"$sim" churn --processes 3007 --first 3007 | books | cmp - "$work/churn" || fail "churn: names matter"
for kind in migrations notifier_inserts notifier_removes device_exclusive_restores; do
	[ "$(events $kind < "$work/churn")" = 3007 ] || fail "churn: $kind, not one a process"
done
echo "churn: the same books by 1, 2, 4 and 7 threads, and by others of the same number"

echo | "$sim" exact --events 10 --wait-for-stdin | head -n 1 | grep -qx ready || fail "no ready line"
[ "$("$sim" list | wc -l)" -gt 5 ] || fail "list is short"
for bad in "" "fly" "exact --events 0" "exact --events ten" "churn --processes 0" "churn --first -1" "exact --threads 1.5" "run --rate -1" \
	"run --scenario nothing" "run --wings" "run --rate" "list all" "exact 7"; do
	code=0
	"$sim" $bad > "$work/out" 2> "$work/err" || code=$?
	[ $code = 2 ] && [ ! -s "$work/out" ] && [ "$(wc -l < "$work/err")" = 1 ] || fail "'$bad' is not refused in one line"
done
echo "command line: bad ones are refused"

steps=$("$sim" run --seconds 3 --rate 400 | sed 's/.* \([0-9]*\) events.*/\1/')
[ "$steps" -gt 1000 ] && [ "$steps" -lt 1400 ] || fail "$steps events in 3 s at 400/s"
"$sim" list | while read -r name _; do
	"$sim" run --seconds 0.2 --rate 300 --scenario "$name" > /dev/null || fail "scenario $name"
done
"$sim" run > "$work/out" &
sleep 0.3
kill -TERM $!
wait $! || fail "SIGTERM is no clean end"
grep -q migrations "$work/out" || fail "no summary after SIGTERM"
echo "run: the rate holds, every scenario plays, SIGTERM ends it"

for function in migrate_vma_setup migrate_vma_pages migrate_vma_finalize migrate_device_unmap migrate_device_range \
	migrate_device_pfns migrate_device_pages migrate_device_finalize hmm_range_fault hmm_range_fault_unlocked_timeout \
	hmm_range_fault_locked make_device_exclusive restore_exclusive_pte mmu_interval_notifier_insert \
	mmu_interval_notifier_insert_locked mmu_interval_notifier_remove hmm_dma_map_pfn hmm_dma_unmap_pfn \
	do_huge_pmd_device_private __mmu_notifier_invalidate_range_start set_migration_pte remove_migration_pte \
	set_migration_pmd remove_migration_pmd; do
	grep -q "^[0-9a-f]\{16\} T $function\$" "$sim.kallsyms" || fail "$function is not in kallsyms"
	objdump -d "$sim" --disassemble="$function" | grep -q "<$function>:" || fail "$function has no code"
done
[ -z "$(awk '{ print $3 }' "$sim.kallsyms" | sort | uniq -d)" ] || fail "kallsyms has a name twice"
[ "$(readelf -SW "$sim" | grep -c ' \.BTF ')" = 1 ] || fail "not one .BTF section"
echo "products: all functions in kallsyms, one .BTF section"

[ "$(grep -cE '^3[0-9a-f]{11}-3[0-9a-f]{11} : ' "$sim.iomem")" = 8 ] || fail "not eight devices in iomem"
echo "products: eight regions of device memory in iomem"

bpftool=$(command -v bpftool || command -v /usr/sbin/bpftool || true)
if [ -n "$bpftool" ]; then
	"$bpftool" btf dump file "$sim.btf" > "$work/btf"
	awk -F"'" '$1 ~ /FUNC $/ { print $2 }' "$work/btf" > "$work/functions"
	for function in migrate_vma_setup hmm_range_fault restore_exclusive_pte set_migration_pte; do
		grep -qx "$function" "$work/functions" || fail "BTF has no FUNC $function"
	done
	for name in HMM_PFN_REQ_WRITE MIGRATE_VMA_SELECT_COMPOUND MMU_NOTIFY_EXCLUSIVE; do
		grep -q "'$name' val" "$work/btf" || fail "BTF has no $name"
	done
	echo "products: bpftool reads the BTF"
fi

for sanitizers in address,undefined thread; do
	checked=$build/check/simulator-$sanitizers
	${CC:-gcc} -std=gnu11 -g -O1 -pthread -fsanitize=$sanitizers -fno-sanitize-recover=all -no-pie \
		simulator.c -lm -o "$checked"
	# Thread sanitizers of before gcc 14 do not find their way around much randomisation.
	setarch -R "$checked" exact --events 3007 | books | cmp - "$work/books" || fail "$sanitizers: other books"
	setarch -R "$checked" run --seconds 2 --rate 500 > /dev/null || fail "$sanitizers: run"
done
echo "sanitizers: address, undefined and thread find nothing"
