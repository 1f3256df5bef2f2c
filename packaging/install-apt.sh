#!/bin/bash
# packaging/install-apt.sh [program]: installs what packaging/apt-packages.txt lists and is
# not there yet; with "program" its first section only, which "pip install ." needs. Idempotent.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
last='$'
[ "${1:-}" = program ] && last='/^# --/'
wanted=$(sed -n "1,${last}p" "$here/apt-packages.txt" | sed 's/#.*//' | tr -s ' \n' ' ')
[ "$(uname -m)" = x86_64 ] || wanted=${wanted//user-mode-linux/}   # packaged for amd64 only
missing=()
for package in $wanted; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
$sudo apt-get install -y -q --no-install-recommends "${missing[@]}"

# Some come as services, which start at once.  Tests and demo start their own, on ports of
# their own, so a service that nobody had before is not left running.
[ -d /run/systemd/system ] || exit 0
declare -A services=([docker-registry]=docker-registry [nginx-light]=nginx [containerd]=containerd)
for package in "${missing[@]}"; do
    unit=${services[$package]:-}
    [ -z "$unit" ] || $sudo systemctl disable --now "$unit.service"
done
