#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install: puts the exporter and its units below $DESTDIR. What it needs is the system's own, as python3-bpfcc is; what
# of it the system lacks, or has too old, comes from PyPI into the exporter's folder. Configuration is never overwritten.
# uninstall: takes all of that away again, but for the configuration.
# For `make install` and `make uninstall`, which pass PREFIX and DESTDIR, and UNITDIR for systemd's units.
set -eu
umask 022
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3}
prefix=${PREFIX:-/usr/local}
units=${UNITDIR:-$prefix/lib/systemd/system}
library=$prefix/lib/hmm-exporter
drop_ins=$prefix/share/hmm-exporter
configuration=/etc/hmm-exporter
to=${DESTDIR:-}

# The project's dependencies that the system's Python does not meet, one a line.
lacking() {
	# shellcheck disable=SC2046 # a list of words
	"$python" -I - $(sed -n 's/^dependencies = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",') <<-'END'
		import importlib.metadata, sys
		for requirement in sys.argv[1:]:
		    name, _, least = requirement.partition(">=")
		    try:
		        version = importlib.metadata.version(name)
		    except importlib.metadata.PackageNotFoundError:
		        version = "0"
		    if [int(part) for part in version.split(".")[:2]] < [int(part) for part in least.split(".")]:
		        print(requirement)
	END
}

# put FOLDER FILE...: with the prefix in place of the default one
put() {
	folder=$1
	shift
	mkdir -p "$folder"
	for file; do
		sed "s|/usr/local|$prefix|g" "$file" >"$folder/${file##*/}"
	done
}

install_all() {
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	mkdir "$work/library"
	missing=$(lacking)
	if [ "$missing" ]; then
		# Not the system's pip: it may be missing, and Debian's refuses to install (PEP 668).
		"$python" -m venv "$work/venv"
		# shellcheck disable=SC2086
		"$work/venv/bin/pip" install --quiet --disable-pip-version-check --target "$work/library" $missing
		rm -rf "$work/library/bin"
	fi
	cp -R hmm_exporter "$work/library"
	find "$work/library" -name __pycache__ -prune -exec rm -r {} +
	# By content, not by time: copies are newer than what was compiled, and the daemon may write no others.
	"$python" -m compileall -q --invalidation-mode unchecked-hash -s "$work" -p "$prefix/lib" "$work/library"
	cat >"$work/hmm-exporter" <<-END
		#!$python -I
		import sys

		sys.path.insert(0, "$library")
		from hmm_exporter.__main__ import main

		sys.exit(main())
	END

	rm -rf "$to$library"
	mkdir -p "$to$prefix/bin" "$to$library" "$to$configuration"
	cp -R "$work/library/." "$to$library"
	install -m 755 "$work/hmm-exporter" "$to$prefix/bin/hmm-exporter"
	put "$to$units" deploy/systemd/hmm-exporter.service deploy/systemd/hmm-exporter.socket
	put "$to$drop_ins" deploy/systemd/*.conf
	[ -e "$to$configuration/config.yaml" ] || cp config.example.yaml "$to$configuration/config.yaml"
	[ -e "$to$configuration/hmm-exporter.env" ] || put "$to$configuration" deploy/systemd/hmm-exporter.env
	cat <<-END
		hmm-exporter is in $prefix, its configuration in $configuration. Next, as root:
		  $prefix/bin/hmm-exporter --check
		  systemctl daemon-reload
		  systemctl enable --now hmm-exporter
	END
}

uninstall_all() {
	if [ -z "$to" ] && systemctl is-enabled hmm-exporter.service hmm-exporter.socket 2>/dev/null | grep -q '^enabled'; then
		echo "install.sh: it is enabled; first: systemctl disable --now hmm-exporter.service hmm-exporter.socket" >&2
		exit 1
	fi
	rm -rf "$to$library" "$to$drop_ins"
	rm -f "$to$prefix/bin/hmm-exporter" "$to$units/hmm-exporter.service" "$to$units/hmm-exporter.socket"
	echo "removed; $configuration is kept"
}

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*)
	echo "usage: install.sh install | uninstall" >&2
	exit 2
	;;
esac
