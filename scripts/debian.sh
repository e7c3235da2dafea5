#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packages of the operating system, if it is Debian or made from it. Quiet, unless something fails.
#
#   debian.sh install PACKAGE...         installs those that are missing
#   debian.sh unpack FILE TO PACKAGE...  takes a file out of the first package that there is, and
#                                        does not install it
set -eu

say() {
	echo "${0##*/}: $*" >&2
}

quietly() {
	"$@" >>"$work/log" 2>&1 || {
		cat "$work/log" >&2
		say "failed: $*"
		exit 1
	}
}

# Elsewhere the names differ and the rest may work: say what is needed, and go on.
is_debian() {
	command -v apt-get >/dev/null || {
		say "$NAME is not made from Debian: install what Debian calls $* (going on without)"
		return 1
	}
}

installed() {
	dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# A repository of somebody else may be down, or we may not be root: what counts is whether the packages are found.
update() {
	apt-get update >>"$work/log" 2>&1 || :
}

install() {
	is_debian "$@" || return 0
	missing=
	for package; do
		installed "$package" || missing="$missing $package"
	done
	[ "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || {
		say "packages are missing; as root: apt-get install --no-install-recommends$missing"
		exit 1
	}
	echo "installing from $NAME:$missing"
	update
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # a list of words
	quietly apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=120 $missing
}

unpack() {
	file=$1
	to=$PWD/$2
	shift 2
	is_debian "$1" || return 0
	echo "taking ${file##*/} out of the packages of $NAME"
	cd "$work"
	update
	for package; do
		apt-get download "$package" >>log 2>&1 && break
	done
	quietly dpkg-deb --extract ./*.deb .
	mv "$file" "$to"
}

extract() {
	suite=$1
	to=$2
	shift 2
	is_debian "$@" || return 0
	missing=
	for package; do
		[ -e "$to/.$package" ] || missing="$missing $package"
	done
	[ "$missing" ] || return 0
	echo "taking out of Debian's $suite:$missing"
	mkdir -p "$work/etc/apt" "$work/var/lib/dpkg" "$work/var/lib/apt/lists/partial" "$work/var/cache/apt/archives/partial" "$to"
	: >"$work/var/lib/dpkg/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$work/etc/apt/sources.list"
	# An apt of its own, that knows nothing of this machine but how to reach the network.
	own="-o Dir::State=$work/var/lib/apt -o Dir::State::status=$work/var/lib/dpkg/status -o Dir::Cache=$work/var/cache/apt \
		-o Dir::Etc::SourceList=$work/etc/apt/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
		-o Dir::Etc::PreferencesParts=/dev/null -o APT::Sandbox::User=root -o Acquire::Languages=none"
	cd "$work"
	# shellcheck disable=SC2086 # lists of words
	quietly apt-get $own update
	# shellcheck disable=SC2086
	quietly apt-get $own download $missing
	for file in ./*.deb; do
		quietly dpkg-deb --extract "$file" "$to"
	done
	for package in $missing; do
		: >"$to/.$package"
	done
}

. /etc/os-release
command=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$command" "$@"
