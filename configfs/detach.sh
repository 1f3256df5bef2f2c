#!/bin/sh
# detach.sh NAME: takes down what attach.sh NAME made, in reverse.
#
# With "dead" as second argument for a device that no daemon serves: the unlink makes the
# kernel flush the disk and waits for the answer where no signal reaches, so the kernel is
# told first that there is no cache to flush.
set -eu
name=$1
target=/sys/kernel/config/target
digits=$(printf %s "$name" | sha256sum | cut -c1-32)
port=$target/loopback/naa.5001405$(printf %s "port$digits" | sha256sum | cut -c1-9)

if [ "${2:-}" = dead ]; then
    echo "temporary write through" >"/sys/class/scsi_disk/$(cat "$port/tpgt_1/address"):0/cache_type"
fi
rm "$port/tpgt_1/lun/lun_0/$name"
rmdir "$port/tpgt_1/lun/lun_0"
echo NULL >"$port/tpgt_1/nexus"
rmdir "$port/tpgt_1" "$port"
rmdir "$target/core/user_2026/$name"   # here the daemon hears of it
rmdir "$target/core/user_2026" 2>/dev/null || true
