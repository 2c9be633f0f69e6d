#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""compare.py [-v] FILE [BASE]            : FILE from pair.py; table of BASE (default: first system) against each other one, pair by pair
   compare.py [-v] A.txt B.txt [C.txt...] : outputs of run-native.sh / run-qemu.sh (plain BENCH lines)
Ratios are slowdowns (how many times slower than BASE; >1 = slower), geometric means per class. -v: each test too."""
import sys, math, re, collections, statistics as st
v = '-v' in sys.argv; args = [a for a in sys.argv[1:] if a != '-v']
LOW = ('ns', 'us', 'ms', 's'); val = collections.defaultdict(lambda: collections.defaultdict(dict)); unit = {}; chk = collections.defaultdict(dict); order = []; bad = []
def take(sysn, r, l):
    f = l.split()
    if sysn not in order: order.append(sysn)
    if f[0] == 'BENCH' and len(f) >= 4:
        try: x = float(f[2])
        except ValueError: return
        if x > 0: val[f[1]][sysn][r] = x; unit[f[1]] = f[3]
    elif f[0] == 'CHECK': chk[f[1]][sysn] = f[2]
    elif f[0] in ('FAIL', 'TIMEOUT') or (f[0] == 'VERIFY' and f[-1] != 'ok'): bad.append((sysn, l))
import os
if len(args) >= 2 and os.path.exists(args[1]):
    for fn in args:
        for l in open(fn, errors='replace'):
            l = l.strip()
            if l[:5] in ('BENCH', 'CHECK', 'VERIF', 'FAIL '): take(fn, 0, l)
    base = args[0]
else:
    for l in open(args[0], errors='replace'):
        m = re.match(r'(\d+) (\S+) ((BENCH|CHECK|FAIL|TIMEOUT|VERIFY) .*)', l)
        if m: take(m[2], int(m[1]), m[3])
    base = args[1] if len(args) > 1 else order[0]
oth = [o for o in order if o != base]
def slow(n, o):
    rs = [(val[n][o][r] / val[n][base][r]) ** (1 if unit[n] in LOW else -1) for r in val[n][o] if r in val[n].get(base, {})]
    return (st.median(rs), max(rs) / min(rs)) if rs else None
cl = collections.OrderedDict()
for n in val: cl.setdefault(n.split('.')[0], []).append(n)
w = max([10] + [len(o) for o in oth]) + 1
if v:
    print('%-22s %14s %-5s' % ('test', base, '') + ''.join('%*s' % (w, o) for o in oth))
    for c in cl:
        for n in cl[c]:
            b = list(val[n].get(base, {}).values())
            print('%-22s %14s %-5s' % (n, '%.5g' % st.median(b) if b else '-', unit[n]) + ''.join('%*s' % (w, ('%.2fx' % slow(n, o)[0]) if slow(n, o) else '-') for o in oth))
print('%-10s %5s' % ('class', 'tests') + ''.join('%*s' % (w, o) for o in oth) + '   (times slower than %s, geometric mean)' % base)
def gm(xs): return math.exp(sum(map(math.log, xs)) / len(xs)) if xs else float('nan')
for c in cl:
    print('%-10s %5d' % (c, len(cl[c])) + ''.join('%*s' % (w, '%.3g' % gm([slow(n, o)[0] for n in cl[c] if slow(n, o)])) for o in oth))
# smp2.X is two copies of X at once: how many times one copy's speed they reach together, on each system by itself.
both = [n for n in val if n.startswith('smp2.') and n[5:] in val]
def gain(n, o):
    one, two = val[n[5:]].get(o), val[n].get(o)
    if not one or not two: return None
    if unit[n] in LOW: return st.median(one.values()) / st.median(two.values()) * 2
    return st.median(two.values()) / st.median(one.values())
if both:
    print('%-22s ' % 'two at once' + ''.join('%*s' % (w, o) for o in order) + '   (times the speed of one)')
    for n in both: print('%-22s ' % n[5:] + ''.join('%*s' % (w, '%.2f' % gain(n, o) if gain(n, o) else '-') for o in order))
sp = [slow(n, o)[1] for n in val for o in oth if slow(n, o)]
if sp and max(sp) > 1: print('noise: spread max/min of the pair ratios over rounds: median %.2f, 90%% %.2f, worst %.2f' % (st.median(sp), sorted(sp)[int(len(sp) * .9)], max(sp)))
for n in chk:
    if len(set(chk[n].values())) > 1: print('CHECK DIFFERS', n, dict(chk[n]))
hn = collections.defaultdict(list)
if len(args) < 2 or not os.path.exists(args[-1]):
    for l in open(args[0], errors='replace'):
        m = re.match(r'\d+ (\S+) HOST (\S+) \S+ owncpu (\S+) busycpu (\S+)', l)
        if m: hn[m[1]].append((float(m[3]), max(0, float(m[4]) - float(m[3]))))
for o in hn: print('host: %-8s own CPU/wall mean %.2f, CPU taken by others mean %.2f of %d' % (o, st.mean(x[0] for x in hn[o]), st.mean(x[1] for x in hn[o]), os.cpu_count()))
print('checks equal on all: %d of %d' % (sum(len(set(c.values())) == 1 for c in chk.values()), len(chk)))
for b in bad: print('BAD', *b)
