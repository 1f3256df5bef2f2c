#!/bin/sh
# attach.sh NAME CONFIG: what `tcmu-overlaybd attach` asks of the kernel, as mkdir and echo.
#
# CONFIG is an image configuration (config.v1.json).  A daemon must run (tcmu-overlaybd
# serve): it opens the image when the kernel tells it of the device, and the disk gets its
# size when the image is open.  Prints /dev/sdX.  The reasons for each number are in
# README.rst; detach.sh NAME takes it all down.  A VM test runs both.
set -eu
name=$1
config=$(realpath "$2")

target=/sys/kernel/config/target
backstore=$target/core/user_2026/$name
digits=$(printf %s "$name" | sha256sum | cut -c1-32)
port=$target/loopback/naa.5001405$(printf %s "port$digits" | sha256sum | cut -c1-9)
nexus=naa.5001405$(printf %s "nexus$digits" | sha256sum | cut -c1-9)

modprobe -a target_core_user tcm_loop sd_mod
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config

# The backstore: "enable" tells the daemon, and waits for its answer.
mkdir -p "$backstore"
echo "dev_config=overlaybd/$config;$name,hw_max_sectors=2048,max_data_area_mb=128,cmd_ring_size_mb=1" \
    >"$backstore/control"
echo 1 >"$backstore/enable"
echo 0 >"$backstore/attrib/cmd_time_out"   # between enable and the link, else EINVAL
echo 60 >"$backstore/attrib/qfull_time_out"
echo "$digits" >"$backstore/wwn/vpd_unit_serial"

# The port: a SCSI host of its own.  The parameters count for hosts made after they were set.
mkdir -p "$target/loopback"
echo 128 >/sys/module/tcm_loop/parameters/can_queue 2>/dev/null || true
echo 128 >/sys/module/tcm_loop/parameters/cmd_per_lun 2>/dev/null || true
mkdir -p "$port/tpgt_1"
echo "$nexus" >"$port/tpgt_1/nexus"
mkdir -p "$port/tpgt_1/lun/lun_0"
ln -s "$backstore" "$port/tpgt_1/lun/lun_0/$name"   # here the disk comes into being

device=/sys/class/scsi_device/$(cat "$port/tpgt_1/address"):0/device
for _ in $(seq 200); do
    disk=$(ls "$device/block" 2>/dev/null || true)
    # A disk that was scanned before its image was open has no size; the daemon rescans it.
    [ -n "$disk" ] && [ "$(cat "/sys/block/$disk/size")" != 0 ] && break
    sleep 0.05
done
echo 60 >"$device/timeout"
echo 1024 >"/sys/block/$disk/queue/read_ahead_kb"
echo "/dev/$disk"
