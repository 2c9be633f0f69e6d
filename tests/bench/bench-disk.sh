#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Disks: ratios against fio and qemu-img bench in one run on one file system. Prints a table; asserts nothing.
# Usage: bench-disk.sh BUILD-FOLDER [SCRATCH-FOLDER]
set -eu
build=$1
work=$(mktemp -d "${2:-/var/tmp}/cloche-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
bench=$build/tests/bench/bench-disk
disk=$build/cloche-disk
size=512M
seconds=${BENCH_SECONDS:-3}

ops_fio() { # rw block depth direct
    fio --name=b --filename="$work/raw" --rw="$1" --bs="$2" --iodepth="$3" --ioengine=io_uring --direct="$4" --size=$size \
        --time_based --runtime="$seconds" --output-format=json --invalidate=0 --norandommap --randrepeat=0 2>/dev/null |
        python3 -c 'import json,sys; j=json.load(sys.stdin)["jobs"][0]; print(round(j["read"]["iops"]+j["write"]["iops"]))'
}
ops() { "$bench" "$@" | cut -d' ' -f1; }
ratio() { python3 -c "print('%.2f' % ($1/max($2,1)))"; }

"$disk" create -q -f raw -p "$work/raw" $size
"$disk" create -q "$work/qcow2" $size
dd if=/dev/urandom of="$work/raw" bs=1M count=512 conv=notrunc status=none
"$disk" convert -q --force "$work/raw" "$work/qcow2"
sync "$work/raw" "$work/qcow2"

printf '%-8s %-6s %-7s %5s %5s %9s %9s %9s %9s %9s\n' cache op order block depth fio raw raw/fio qcow2 qcow2/raw
for cache in cached direct; do
    direct=0
    [ $cache = cached ] || direct=1
    for op in read write; do
        for order in seq random; do
            block=4096
            [ $order = random ] || block=65536
            for depth in 1 32; do
                rw=$op
                [ $order = seq ] || rw=rand$op
                f=$(ops_fio "$rw" $block $depth $direct)
                r=$(ops "$work/raw" raw $op $order $block $depth "$seconds" $cache)
                q=$(ops "$work/qcow2" qcow2 $op $order $block $depth "$seconds" $cache)
                printf '%-8s %-6s %-7s %5s %5s %9s %9s %9s %9s %9s\n' $cache $op $order $block $depth "$f" "$r" \
                    "$(ratio "$r" "$f")" "$q" "$(ratio "$q" "$r")"
            done
        done
    done
done

printf '\n%-30s %12s %12s %7s\n' 'allocating writes (qcow2)' qemu-img cloche ratio
# BLOCK STEP DEPTH COUNT CACHE: with a step of 64 KiB each write needs a new cluster.
for case in '65536 65536 1 8000 writeback' '65536 65536 32 8000 writeback' '4096 65536 1 40000 writeback' \
    '4096 65536 32 40000 writeback' '4096 4096 32 40000 writeback' '65536 65536 32 4000 none' '4096 65536 32 8000 none'; do
    set -- $case
    order=stride
    [ "$1" = "$2" ] && order=seq
    cache=cached
    [ "$5" = none ] && cache=direct
    "$disk" create -q --force "$work/a" 4G
    theirs=$(qemu-img bench -w -f qcow2 -t "$5" -s "$1" -S "$2" -d "$3" -c "$4" "$work/a" |
        python3 -c "import re,sys; print(round($4 / float(re.search('in ([0-9.]+) seconds', sys.stdin.read()).group(1))))")
    "$disk" create -q --force "$work/a" 4G
    ours=$(ops "$work/a" qcow2 allocate $order "$1" "$3" "$4" $cache)
    printf '%-30s %12s %12s %7s\n' "$1 step $2 depth $3 $cache" "$theirs" "$ours" "$(ratio "$ours" "$theirs")"
done

"$disk" create -q "$work/chain0" 1T
for i in $(seq 100); do "$disk" create -q -b "chain$((i - 1))" -B qcow2 "$work/chain$i"; done
set -- $("$bench" open "$work/chain100")
printf '\nopening 1 TiB with 100 overlays and one read: %s ms, %s KiB resident\n' "$1" "$2"
