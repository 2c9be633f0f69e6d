#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# run-qemu.sh [extra qemu args] : all BENCH lines of the bench guest.  Env: BENCH=all|kb.. (default all) SMP=1 CPU=max MEM=1024 QEMU=... APPEND=extra
D=$(cd "$(dirname "$0")" && pwd); S=${SMP:-1}; T=; [ $S -gt 1 ] && T=,thread=multi
I=bench.cpio.zst; case $BENCH in boot|idle|heartbeat|fb) I=boot.cpio.gz;; esac
exec ${QEMU:-qemu-system-x86_64} -accel ${ACCEL:-tcg$T} -cpu ${CPU:-max} -smp $S -m ${MEM:-1024} -nodefaults -display none -vga none -serial stdio -no-reboot \
 -kernel ${BENCH_OUT:-$D/out}/vmlinuz -initrd ${BENCH_OUT:-$D/out}/$I -append "console=ttyS0 quiet panic=-1 bench=${BENCH:-all} $APPEND" "$@"
