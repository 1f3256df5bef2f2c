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
# Some come as services.  Tests and demo start their own, on ports of their own, so none is
# started here, nor left to be started with the machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 0755 "$policy"
    trap '$sudo rm -f "$policy"' EXIT
fi
$sudo apt-get update -q
$sudo apt-get install -y -q --no-install-recommends "${missing[@]}"

[ -d /run/systemd/system ] || exit 0
declare -A units=(
    [docker-registry]=docker-registry.service [nginx-light]=nginx.service [containerd]=containerd.service
    [open-iscsi]="iscsid.socket iscsid.service open-iscsi.service"
    [targetcli-fb]=rtslib-fb-targetctl.service   # which clears all of LIO when it stops
)
for package in "${missing[@]}"; do
    for unit in ${units[$package]:-}; do
        $sudo systemctl disable --now "$unit"
    done
done
