#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The exporter on the simulator, until Ctrl-C or SIGTERM (status 0), or until one of the two ends
# by itself (its status, or 1). For `make demo`, which builds both.
set -u
# Job control gives each a process group of its own: Ctrl-C then reaches this script alone, and
# each of them gets one signal.
set -m

simulator=tests/simulator/build/hmm-simulator
url=http://127.0.0.1:10466/metrics
asked=
pids=()

# A node's cgroups and links to logs, for its pods to have names.
node=$(mktemp -d)
trap 'rm -rf "$node"' EXIT
cgroups=$(.venv/bin/python -m tests.host_files "$node") || exit
cat scripts/demo.yaml - >"$node/demo.yaml" <<-END
	host: {cgroup: "$node/cgroup", container_logs: "$node/log/containers"}
END

stop() {
	asked=yes
	kill "${pids[@]}" 2>/dev/null
}

# Passes the exporter's log on, and says where to look once it is ready.
announce() {
	trap '' INT TERM HUP
	while IFS= read -r line; do
		printf '%s\n' "$line"
		[[ $line != *msg=ready* ]] || printf '\n  %s\n  curl -s %s | grep ^hmm_\n\nCtrl-C ends it.\n\n' $url $url
	done >&2
}

trap stop INT TERM HUP
exec {log}> >(announce)
announcer=$!
"$simulator" run --cgroups "$cgroups" >/dev/null {log}>&- &
pids+=($!)
.venv/bin/hmm-exporter --config.file "$node/demo.yaml" --simulator "$simulator" 2>&"$log" {log}>&- &
pids+=($!)
exec {log}>&-

if [[ $asked ]]; then stop; else wait -n; fi
status=$?
[[ $asked ]] || kill "${pids[@]}" 2>/dev/null
wait "${pids[@]}" "$announcer"
[[ ! $asked ]] || exit 0
exit $((status ? status : 1))
