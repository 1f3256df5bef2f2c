#!/bin/bash
# packaging/fetch-tcmu-runner.sh DIR: Debian's tcmu-runner, unpacked into DIR, for the tests that run it
# beside our daemon.  It is not installed: its D-Bus activation file would have targetcli start it.
set -euo pipefail
target=$1
[ -x "$target/usr/bin/tcmu-runner" ] && exit 0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
chmod 777 "$scratch" # apt writes as a user of its own
if ! (cd "$scratch" && apt-get download -qq tcmu-runner); then
    echo "tcmu-runner is not to be had here: the tests that run it will be skipped" >&2
    exit 0
fi
mkdir -p "$target"
dpkg-deb -x "$scratch"/tcmu-runner_*.deb "$target"
