#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# build-guest.sh OUTDIR: makes OUTDIR/{vmlinuz,boot.cpio.gz,bench.cpio.zst,root/} from Debian packages. The kernel is taken out of its
# package; nothing is installed for it.
# Debian packages: linux-image-amd64 busybox-static gcc cpio zstd xz-utils gzip lz4 7zip bc openssl perl-base python3-minimal
#   sqlite3 luajit stress-ng iperf3 grub-pc-bin xorriso mtools kmod. Optional: FIO=path of a static fio (else the tests of it are skipped)
set -e
D=$(cd "$(dirname "$0")" && pwd); O=${1:-$D/out}; mkdir -p "$O"; O=$(cd "$O" && pwd); R=$O/root; B=$O/bootroot; rm -rf "$R" "$B"
K=$O/kernel
if [ ! -d $K ]; then
 mkdir -p $O/deb; (cd $O/deb; P=$(apt-cache depends linux-image-amd64 | sed -n 's/ *Depends: //p' | head -1); apt-get download -qq $P; dpkg-deb -x $P*.deb $K); rm -rf $O/deb
fi
V=$(ls $K/boot/vmlinuz-*-amd64 | sed 's/.*vmlinuz-//' | sort -V | tail -1); cp $K/boot/vmlinuz-$V $O/vmlinuz; [ -f $K/lib/modules/$V/modules.dep ] || depmod -b $K $V
gcc -O2 -fno-tree-vectorize -ffp-contract=off -static -pthread -w -o $O/kb $D/kb.c -lm
mods() { # mods ROOT names...
  r=$1; shift; for m; do modprobe -d $K -S $V --show-depends $m 2>/dev/null | awk '/^insmod/{print $2}'; done | sort -u | while read f; do mkdir -p $r$(dirname ${f#$K}); cp $f $r${f#$K}; done
  mkdir -p $r/lib/modules/$V; cp $K/lib/modules/$V/modules.builtin $K/lib/modules/$V/modules.order $r/lib/modules/$V/; cp $K/lib/modules/$V/modules.builtin.modinfo $r/lib/modules/$V/ 2>/dev/null || :; depmod -b $r $V; }
base() { mkdir -p $1/usr/bin $1/usr/lib $1/usr/lib64 $1/usr/sbin $1/proc $1/sys $1/dev $1/tmp $1/bench $1/mnt $1/etc $1/root
  ln -s usr/bin $1/bin; ln -s usr/lib $1/lib; ln -s usr/lib64 $1/lib64; ln -s usr/sbin $1/sbin
  cp /bin/busybox $1/bin/; for a in $(/bin/busybox --list); do [ $a = busybox ] || ln -s busybox $1/bin/$a; done
  cp $O/kb $1/bin/kb; cp $D/guest/init $1/init; cp $D/guest/run $D/guest/serve $1/bench/; chmod 755 $1/init $1/bench/*; echo root:x:0:0:root:/root:/bin/sh > $1/etc/passwd; echo root:x:0: > $1/etc/group
  echo "127.0.0.1 localhost" > $1/etc/hosts; }
MB="virtio_pci virtio_blk virtio_net ata_piix ata_generic sd_mod ahci e1000 8139cp 8139too af_packet"
base $B; mods $B $MB
base $R; mods $R $MB
prog() { for p; do f=$(PATH=/usr/bin:/bin:/usr/sbin command -v $p) || { echo "no $p" >&2; exit 1; }; f=$(readlink -f $f); rm -f $R/usr/bin/$(basename $p); cp $f $R/usr/bin/$(basename $p); lib $f; done; }
lib() { ldd $1 2>/dev/null | awk '$3~/^\//{print $3} $1~/^\/lib.*ld-linux/{print $1}' | while read l; do d=$R/usr/${l#/}; d=$(echo $d | sed 's,/usr/usr/,/usr/,'); mkdir -p $(dirname $d); [ -e $d ] || cp -L $l $d; done; }
prog gzip xz zstd lz4 7zz bc openssl perl python3.11 sqlite3 luajit stress-ng iperf3; cp /bin/true $R/bin/dyntrue; lib /bin/true
ln -sf python3.11 $R/usr/bin/python3
CC1=$(gcc -print-prog-name=cc1); cp $CC1 $R/usr/bin/cc1; lib $CC1; prog as
[ -n "$FIO" ] && cp "$FIO" $R/usr/bin/fio || :
dpkg -L libpython3.11-minimal | while read f; do [ -f $f ] && case $f in /usr/lib/python3*) mkdir -p $R$(dirname $f); cp $f $R$f;; esac; done || :
mkdir -p $R/usr/share/luajit-2.1.0-beta3 $R/usr/lib/ssl
# ---- data (made from the same machine's packages; the CHECK lines do not depend on it)
( cat /usr/share/common-licenses/*; cat $K/boot/config-$V $K/boot/System.map-$V ) | head -c 4194304 > $R/bench/data4m; head -c 1048576 $R/bench/data4m > $R/bench/data1m
( cd $D/guest; cp q.sql b.py b.pl b.lua stresslist $R/bench/ )
gcc -E -P $D/guest/c.c > $R/bench/c.i
gzip -kc $R/bench/data4m > $R/bench/data4m.gz; xz -1kc $R/bench/data1m > $R/bench/data1m.xz; zstd -qkc $R/bench/data4m > $R/bench/data4m.zst
chroot $R /usr/bin/python3 -I -S -c 'import zlib' 2>/dev/null || :; chroot $R /usr/bin/python3 -I -S /bench/b.py >/dev/null
( cd $B; find . | cpio -o -H newc --quiet | gzip -9 > $O/boot.cpio.gz )
( cd $R; find . | cpio -o -H newc --quiet | zstd -q -T2 -12 -f -o $O/bench.cpio.zst )
rm -rf $B; ls -la $O; du -sh $R
