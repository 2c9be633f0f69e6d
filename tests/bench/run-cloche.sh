#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# run-cloche.sh [further cloche-vm options]: the bench guest in cloche-vm, serial line on stdio. Environment as for run-qemu.sh, and
# CLOCHE_VM (the monitor), ENGINE (auto).
D=$(cd "$(dirname "$0")" && pwd)
O=${BENCH_OUT:-$D/out}
I=bench.cpio.zst
case $BENCH in boot | idle | heartbeat | fb) I=boot.cpio.gz ;; esac
exec "${CLOCHE_VM:-cloche-vm}" --engine "${ENGINE:-auto}" --cpu "${CPU:-max}" --cpus "${SMP:-1}" --memory "${MEM:-1024}M" --display-adapter none \
    --serial stdio --no-reboot --kernel "$O/vmlinuz" --initrd "$O/$I" --append "console=ttyS0 quiet panic=-1 bench=${BENCH:-all} $APPEND" "$@"
