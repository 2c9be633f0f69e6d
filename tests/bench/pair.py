#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""pair.py -o FILE [-r ROUNDS] [-t TESTS] [-s SECS] NAME='COMMAND' NAME2='COMMAND2' ...
Each COMMAND starts a system whose stdin/stdout is the bench guest's serial line in serve mode (bench=serve), or './run-native.sh serve'.
Tests are run in turn on every system (A B C A B C ...), so machine noise hits all alike. Lines go to FILE as: round system BENCH name value unit.
TESTS: a group (kb, apps, smp, all = kb+apps) or comma list of tests/prefixes. The host clock around each test is kept too (HOST lines)."""
import sys, os, subprocess, time, threading, queue, argparse, signal
ap = argparse.ArgumentParser(); ap.add_argument('-o', default='pair.out'); ap.add_argument('-r', type=int, default=1); ap.add_argument('-t', default='all'); ap.add_argument('-s', default='0.4')
ap.add_argument('--nice', type=int, default=0, help='niceness of every system (root: -10 keeps a busy machine out of the figures)'); ap.add_argument('--limit', type=float, default=60, help='seconds one test may take on one system'); ap.add_argument('sys', nargs='+'); A = ap.parse_args()
D = os.path.dirname(os.path.abspath(__file__)); run = os.path.join(D, 'run-native.sh')
def lst(w): return subprocess.run([run, w], capture_output=True, text=True).stdout.split()
tests = {'all': ['list'], 'kb+apps': ['list'], 'smp': ['smplist'], 'allsmp': ['list', 'smplist']}.get(A.t)
tests = [t for w in tests for t in lst(w)] if tests else [t for x in A.t.split(',') for t in ([y for y in lst('list') + lst('smplist') if y.startswith(x)] if x.endswith('.') else [x])]
def pre():
    os.setsid()
    if A.nice:
        os.nice(A.nice)
        try: open('/proc/self/autogroup', 'w').write(str(A.nice)) # Linux groups CPU shares by session
        except OSError: pass
class S:
    def __init__(s, name, cmd):
        s.name = name; s.t0 = time.time()
        s.p = subprocess.Popen(cmd, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=pre, cwd=D)
        s.q = queue.Queue(); threading.Thread(target=s.rd, daemon=True).start()
    def rd(s):
        for l in s.p.stdout: s.q.put((time.time(), l.decode('latin1').strip('\r\n\0')))
        s.q.put((time.time(), None))
    def wait(s, what, limit, sink=None):
        end = time.time() + limit
        while True:
            try: t, l = s.q.get(timeout=max(.01, end - time.time()))
            except queue.Empty: return None
            if l is None: return None
            if l.startswith(what): return t
            if sink is not None: sink.append(l)
            elif l.startswith(('INIT', 'CLK')): print('#', s.name, '%.2f' % (t - s.t0), l, file=out, flush=True)
    def send(s, l): s.p.stdin.write((l + '\n').encode()); s.p.stdin.flush()
def tree(root): # CPU seconds of a process tree, its reaped children too
    kids = {}; own = {}
    for d in os.listdir('/proc'):
        if d.isdigit():
            try: f = open('/proc/%s/stat' % d).read().rsplit(')', 1)[1].split(); kids.setdefault(int(f[1]), []).append(int(d)); own[int(d)] = sum(map(int, f[11:15]))
            except OSError: pass
    t = 0; todo = [root]
    while todo: k = todo.pop(); t += own.get(k, 0); todo += kids.get(k, [])
    return t / os.sysconf('SC_CLK_TCK')
out = open(A.o, 'w'); print('#', time.ctime(), 'load', os.getloadavg(), file=out)
ss = []
for x in A.sys:
    n, c = x.split('=', 1); s = S(n, c); t = s.wait('READY', 240)
    print('#', n, 'ready', 'NEVER' if t is None else '%.2f' % (t - s.t0), c, file=out, flush=True)
    if t: ss.append(s)
def idle(): f = [int(x) for x in open('/proc/stat').readline().split()[1:]]; return sum(f), f[3] + f[4], f[7]
for r in range(A.r):
    for t in tests:
        for s in ss:
            got = []; a = time.time(); i0 = idle(); c0 = tree(s.p.pid); s.send('%s %s' % (t, A.s)); e = s.wait('DONE', A.limit, got)
            i1 = idle(); cpu = tree(s.p.pid) - c0; busy = (i1[0] - i0[0] - i1[1] + i0[1]) / 100.0
            print(r, s.name, 'HOST', t, '%.3f' % (time.time() - a), 'owncpu %.2f busycpu %.2f steal %d' % (cpu / max(.01, e - a if e else A.limit), busy / max(.01, time.time() - a), i1[2] - i0[2]), file=out)
            for l in got:
                if l.split(' ')[0] in ('BENCH', 'CHECK', 'SKIP', 'FAIL', 'VERIFY'): print(r, s.name, l, file=out)
                else: print(r, s.name, 'TXT', l, file=out)
            if e is None: print(r, s.name, 'TIMEOUT', t, file=out); s.wait('DONE', A.limit * 2, got)
        out.flush()
for s in ss:
    try: s.send('off'); s.p.stdin.close(); s.p.wait(15)
    except Exception: os.killpg(s.p.pid, signal.SIGTERM)
