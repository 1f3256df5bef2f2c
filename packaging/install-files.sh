#!/bin/bash
# packaging/install-files.sh [DESTDIR]: what pip does not install, into the system.
#
# Man pages and completion files (make man completion builds them), systemd units, udev
# rules, D-Bus policy, the list of kernel modules.  The service runs the program that is found
# in PATH, or $PROGRAM.  make install-files calls this; $BUILD is where make builds.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
destination=${1:-}
build=${BUILD:-build}
program=${PROGRAM:-$(command -v tcmu-overlaybd || echo /usr/bin/tcmu-overlaybd)}

put() { install -D -m 0644 "$1" "$destination$2"; }

for page in "$build"/man/*.1; do
    put "$page" "/usr/share/man/man1/${page##*/}"
done
(cd "$build/completion" && find . -type f -printf '%P\n') | while read -r file; do
    put "$build/completion/$file" "/usr/share/$file"
done
put packaging/tcmu-overlaybd.socket /etc/systemd/system/tcmu-overlaybd.socket
put packaging/tcmu-overlaybd.service /etc/systemd/system/tcmu-overlaybd.service
put packaging/tcmu-overlaybd-shutdown.service /etc/systemd/system/tcmu-overlaybd-shutdown.service
sed -i "s|/usr/bin/tcmu-overlaybd|$program|" "$destination"/etc/systemd/system/tcmu-overlaybd*.service
put packaging/60-tcmu-overlaybd.rules /etc/udev/rules.d/60-tcmu-overlaybd.rules
put packaging/org.kernel.TCMUService1.conf /etc/dbus-1/system.d/tcmu-overlaybd.conf
put packaging/tcmu-overlaybd.modules-load.conf /etc/modules-load.d/tcmu-overlaybd.conf
