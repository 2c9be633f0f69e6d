#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# run-native.sh [all|kb|apps|smp|stress|list|serve|TEST] [SECS] : the guest's own programs, natively, in a chroot. SECS env too.
D=$(cd "$(dirname "$0")" && pwd); R=${ROOT:-${BENCH_OUT:-$D/out}/root}
[ "$1" = serve ] && c=/bench/serve || c="/bench/run ${1:-all} $2"
exec unshare -m sh -c "mount -t proc proc $R/proc; mount --bind /dev $R/dev; mount -t sysfs sys $R/sys; mount -t tmpfs -o size=2g tmp $R/tmp; exec chroot $R $c"
