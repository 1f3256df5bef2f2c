#!/bin/bash
# provision.sh: what a fresh Debian 12 machine needs for tests/vm: packages and kernel modules.
#
# Run by `vagrant up`, or by hand as root on any Debian 12 machine.  Run so far: its package
# part, by "make build" in a minimal Debian 12 root; its module part nowhere but in the test
# VM, whose kernel has the modules as they are.
set -euo pipefail
project=${1:-/project}

bash "$project/packaging/install-apt.sh"
apt-get install -y -q --no-install-recommends make git

# A cloud kernel may have been built without target_core_user; the generic one has it.
if ! modprobe -n -q target_core_user || ! modprobe -n -q tcm_loop; then
    apt-get install -y -q linux-image-amd64
    echo "provision: a kernel with target_core_user is installed now: restart the machine (vagrant reload)"
fi
install -m 0644 "$project/packaging/tcmu-overlaybd.modules-load.conf" /etc/modules-load.d/tcmu-overlaybd.conf
modprobe -a target_core_user tcm_loop sd_mod sg || true
