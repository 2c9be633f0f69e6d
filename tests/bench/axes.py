#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""axes.py boot  [-n N] CMD            process start -> INIT line, OFF line, exit (CMD: serial on stdio, bench=boot)
axes.py idle  [-n SECS] CMD           CPU seconds per minute of the VMM with an idle guest, RSS (CMD: bench=idle; waits for READY)
axes.py vnc   --vnc ADDR CMD          CMD: bench=fb, 1024x768x32 (vga=0x344), VNC server at ADDR (unix:PATH or HOST:PORT), serial on stdio
axes.py di    --vnc ADDR [-n LIMIT] [--shot F.ppm] CMD     time to the installer's language screen (first screen that stays)
axes.py net   --port P CMD            CMD: bench=net, host 127.0.0.1:P -> guest 5201, P+1 -> guest 5202
axes.py io    CMD                     CMD: bench=io ; prints the guest's BENCH lines
axes.py qsnap QEMUARGS... | axes.py qmig QEMUARGS...        QEMU only: savevm/loadvm and live migration (unix sockets)
All times on the host's monotonic clock. CMD is one shell string. Every figure is printed as 'BENCH name value unit'."""
import sys, os, subprocess, time, threading, queue, argparse, signal, socket, struct, json, statistics as st, zlib, shutil
class A: n = None; vnc = None; port = 15201; shot = None; tag = ''
v_ = sys.argv[1:]
if not v_: print(__doc__); sys.exit(1)
A.what = v_.pop(0)
while v_ and v_[0] in ('-n', '--vnc', '--port', '--shot', '--tag'):
    o_ = v_.pop(0).strip('-'); x_ = v_.pop(0); setattr(A, o_, float(x_) if o_ == 'n' else int(x_) if o_ == 'port' else x_)
CMD = ' '.join(v_); T = time.monotonic; D = os.path.dirname(os.path.abspath(__file__))
def B(n, v, u): print('BENCH %s%s %.6g %s' % (n, A.tag, v, u), flush=True)
def pre(): # NICE=-10 in the environment: the VMM goes before a busy machine's other work (the session's scheduler group too)
    os.setsid(); n = int(os.environ.get('NICE', 0))
    if n:
        os.nice(n)
        try: open('/proc/self/autogroup', 'w').write(str(n))
        except OSError: pass
class P:
    def __init__(s, cmd=CMD):
        s.t0 = T(); s.p = subprocess.Popen(cmd, shell=isinstance(cmd, str), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=pre, cwd=D); s.q = queue.Queue(); threading.Thread(target=s.rd, daemon=True).start()
    def rd(s):
        for l in iter(s.p.stdout.readline, b''): s.q.put((T(), l.decode('latin1').strip('\r\n\0')))
        s.q.put((T(), None))
    def line(s, limit):
        try: return s.q.get(timeout=max(.001, limit))
        except queue.Empty: return T(), ''
    def wait(s, what, limit, show=False):
        end = T() + limit
        while T() < end:
            t, l = s.line(end - T())
            if l is None: raise SystemExit('the VMM ended before %s: %s %s' % (what, s.old[-5:], CMD))
            s.old = getattr(s, 'old', []) + [l]
            if show and l.startswith('BENCH'): print(l.replace(' ', A.tag + ' ', 2).replace('BENCH' + A.tag, 'BENCH', 1) if A.tag else l, flush=True)
            elif show and l: print('#', l, flush=True)
            if l.startswith(what): return t, l
        raise SystemExit('no %s in %d s' % (what, limit))
    def send(s, l): s.p.stdin.write((l + '\n').encode()); s.p.stdin.flush()
    def end(s):
        try: os.killpg(s.p.pid, signal.SIGTERM); s.p.wait(10)
        except Exception:
            try: os.killpg(s.p.pid, signal.SIGKILL)
            except Exception: pass
    def tree(s):
        kids = {}
        for d in os.listdir('/proc'):
            if d.isdigit():
                try: f = open('/proc/%s/stat' % d).read().rsplit(')', 1)[1].split(); kids.setdefault(int(f[1]), []).append((int(d), int(f[11]) + int(f[12])))
                except OSError: pass
        out = []; todo = [s.p.pid]
        f = open('/proc/%d/stat' % s.p.pid).read().rsplit(')', 1)[1].split(); cpu = int(f[11]) + int(f[12]); pids = [s.p.pid]
        while todo:
            for k, c in kids.get(todo.pop(), []): todo.append(k); pids.append(k); cpu += c
        rss = 0; pk = 0
        for k in pids:
            for l in open('/proc/%d/status' % k):
                if l.startswith('VmRSS'): rss += int(l.split()[1])
                if l.startswith('VmHWM'): pk += int(l.split()[1])
        return cpu / os.sysconf('SC_CLK_TCK'), rss / 1024, pk / 1024
class VNC:
    def __init__(s, a, limit=20):
        end = T() + limit
        while 1:
            try:
                if a.startswith('unix:'): s.s = socket.socket(socket.AF_UNIX); s.s.connect(a[5:])
                else: h, p = a.rsplit(':', 1); s.s = socket.create_connection((h, int(p))); s.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                break
            except OSError:
                if T() > end: raise
                time.sleep(.05)
        s.s.settimeout(60); s.rx(12); s.s.sendall(b'RFB 003.008\n'); n = s.rx(1)[0]; t = s.rx(n); assert 1 in t, 'VNC server wants a password'
        s.s.sendall(b'\1'); assert s.rx(4) == b'\0\0\0\0'; s.s.sendall(b'\1'); h = s.rx(24); s.w, s.h = struct.unpack('>HH', h[:4]); s.rx(struct.unpack('>I', h[20:24])[0])
        s.s.sendall(struct.pack('>B3xBBBBHHHBBB3x', 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)); s.s.sendall(struct.pack('>BxHii', 2, 2, 0, -223)); s.fb = bytearray(s.w * s.h * 4); s.nbytes = 0
    def rx(s, n):
        b = bytearray(n); v = memoryview(b); g = 0
        while g < n:
            k = s.s.recv_into(v[g:])
            if not k: raise EOFError
            g += k
        return b
    def req(s, inc=1): s.s.sendall(struct.pack('>BBHHHH', 3, inc, 0, 0, s.w, s.h))
    def key(s, k):
        for d in (1, 0): s.s.sendall(struct.pack('>BBxxI', 4, d, k))
    def ready(s, t):
        import select; return bool(select.select([s.s], [], [], t)[0])
    def msg(s): # one server message; True for a framebuffer update
        m = s.rx(1)[0]
        if m == 0:
            n = struct.unpack('>xH', s.rx(3))[0]
            for _ in range(n):
                x, y, w, h, e = struct.unpack('>HHHHi', s.rx(12))
                if e == -223: s.w, s.h = w, h; s.fb = bytearray(w * h * 4); continue
                d = s.rx(w * h * 4); s.nbytes += len(d)
                if w == s.w: s.fb[y * w * 4:(y + h) * w * 4] = d
                else:
                    for i in range(h): o = ((y + i) * s.w + x) * 4; s.fb[o:o + w * 4] = d[i * w * 4:(i + 1) * w * 4]
            return True
        if m == 3: s.rx(3); s.rx(struct.unpack('>I', s.rx(4))[0])
        elif m == 1: s.rx(1); f, n = struct.unpack('>HH', s.rx(4)); s.rx(n * 6)
        return False
    def px(s, x, y): o = (y * s.w + x) * 4; return int.from_bytes(s.fb[o:o + 3], 'little')
    def ppm(s, f):
        b = s.fb; o = bytearray(s.w * s.h * 3); o[0::3] = b[2::4]; o[1::3] = b[1::4]; o[2::3] = b[0::4]
        open(f, 'wb').write(b'P6 %d %d 255\n' % (s.w, s.h) + o)
def boot():
    r = []
    for i in range(int(A.n or 3)):
        p = P(); a = p.wait('INIT', 300)[0] - p.t0; b = p.wait('OFF', 100)[0] - p.t0; p.p.wait(60); c = T() - p.t0; r.append((a, b, c)); u = os.wait4
    for k, n in enumerate(('boot.init', 'boot.off', 'boot.exit')): B(n, st.median(x[k] for x in r), 's'); print('#', n, 'min %.2f max %.2f of %d' % (min(x[k] for x in r), max(x[k] for x in r), len(r)))
def idle():
    p = P(); p.wait('READY', 300); time.sleep(8); a = p.tree(); t = T(); time.sleep(A.n or 60); b = p.tree(); t = T() - t
    B('idle.cpu_per_min', (b[0] - a[0]) * 60 / t, 's'); B('idle.rss', b[1], 'MB'); B('idle.rss_peak', b[2], 'MB'); p.end()
def vnc():
    p = P(); p.wait('FBMODE', 300); v = VNC(A.vnc); print('# vnc', v.w, v.h); v.req(0); v.msg()
    def pump(e, f=None):
        n = 0
        v.req(1)
        while T() < e:
            if v.ready(max(0, e - T())):
                if v.msg(): n += 1; v.req(1); f and f(T())
        return n
    p.send('blit 2'); p.wait('DONE', 30, True)
    p.send('lat 10'); lat = []; cur = [None, None]; t, l = p.wait('FB', 20); print('#', l); v.req(1); done = 0; last = None; end = T() + 25
    while T() < end and not done:
        if v.ready(.002) and v.msg():
            now = T(); c = v.px(130, 130) & 255; v.req(1)
            if cur[0] is not None and c == ((cur[0] * 7) & 255) and cur[1]: lat.append(now - cur[1]); cur[1] = None
        while not p.q.empty():
            t, l = p.q.get()
            if l and l.startswith('T'): cur = [int(l[1:]), t]
            if l == 'FBEND': done = 1
    lat.sort(); B('vnc.change_to_update_median', lat[len(lat) // 2] * 1e3, 'ms'); B('vnc.change_to_update_p95', lat[int(len(lat) * .95)] * 1e3, 'ms'); print('#', len(lat), 'changes seen'); p.wait('DONE', 10)
    for m in ('flip30 6', 'flip 6'):
        p.send(m); time.sleep(1); seen = set(); torn = [0]; tot = [0]
        def f(t):
            a, b = v.px(0, 0) & 255, v.px(v.w - 1, v.h - 1) & 255; seen.add((a, int(t * 2))); torn[0] += a != b; tot[0] += 1
        nb = v.nbytes; t = T(); n = pump(t + 4, f); t = T() - t
        B('vnc.fps_' + ('paced60' if '30' in m else 'max'), n / t, 'op/s'); print('# distinct', len(seen) / t, 'torn %d/%d' % (torn[0], tot[0]), 'MB/s %.1f' % ((v.nbytes - nb) / 1e6 / t)); p.wait('DONE', 30, True)
    p.send('key 0'); p.wait('FBREADY', 20); pump(T() + 1); r = []
    for i in range(1, 41):
        t = T(); v.key(ord('a')); want = (i * 7) & 255
        while T() < t + 3:
            if v.ready(.5) and v.msg():
                v.req(1)
                if v.px(130, 130) & 255 == want: r.append(T() - t); break
        time.sleep(.13 + i % 7 * .021)
    r.sort()
    if r: B('vnc.key_to_update_median', r[len(r) // 2] * 1e3, 'ms'); B('vnc.key_to_update_p95', r[int(len(r) * .95)] * 1e3, 'ms'); print('#', len(r), 'keys of 40 seen')
    p.end()
def di():
    p = P(); v = VNC(A.vnc); last = None; tl = T(); hist = []; limit = A.n or 300
    def settled():
        b = v.fb; step = max(4, len(b) // 20000 // 4 * 4 + 4); return len(set(bytes(b[i:i + 3]) for i in range(0, len(b) - 4, step)))
    def langscreen(): # the graphical installer's list: much white, many different pixel rows (the banner alone has neither)
        b = bytes(v.fb); L = v.w * 4; rows = set(b[y * L:(y + 1) * L] for y in range(v.h // 4, v.h * 9 // 10)); m = b[v.h // 2 * L:(v.h // 2 + 200) * L]; white = sum(m[i:i + 3] == b'\xff\xff\xff' for i in range(0, len(m), 404)) / (len(m) / 404)
        return len(rows) >= 100 and white >= .3
    ok = 0; cpu = 0
    v.req(0)
    while T() - p.t0 < limit:
        try:
            if v.ready(.5):
                if v.msg(): v.req(1)
        except EOFError: print('# VNC closed'); break
        h = zlib.crc32(v.fb)
        if h != last: last = h; tl = T(); cpu = p.tree()[0]; hist.append((tl - p.t0, v.w, v.h))
        if T() - tl > 15 and v.w >= 640 and v.h >= 480 and (v.w, v.h) != (720, 400) and settled() >= 20 and langscreen():
            ok = 1; break
    print('# load', os.getloadavg())
    if not ok: print('FAIL di.language_screen' + A.tag); tl = T()
    else: B('di.language_screen', tl - p.t0, 's'); B('di.cpu_to_screen', cpu, 's')
    print('# screen %dx%d colours~%d changes %d; last few %s' % (v.w, v.h, settled(), len(hist), ['%.1f' % x[0] for x in hist[-6:]]))
    c = p.tree(); B('di.rss', c[1], 'MB')
    if A.shot: v.ppm(A.shot)
    p.end()
def net():
    p = P(); p.wait('READY', 300); time.sleep(.5)
    def ip(x, again=2):
        time.sleep(1.5); o = subprocess.run(['iperf3', '-c', '127.0.0.1', '-p', str(A.port), '-t', '4', '-O', '1', '-J'] + x, capture_output=True, text=True, timeout=60).stdout
        try: return json.loads(o)['end']['sum_received']['bits_per_second'] / 1e6
        except Exception:
            e = o[-120:].replace('\n', ' '); print('# iperf:', e)
            return ip(x, again - 1) if again else 0
    for n, x in (('net.to_guest', []), ('net.from_guest', ['-R'])):
        r = ip(x)
        if r: B(n, r, 'Mbit/s')
        else: print('FAIL', n + A.tag)
    s = socket.create_connection(('127.0.0.1', A.port + 1)); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); r = []; e = T() + 3
    s.settimeout(10)
    while T() < e: t = T(); s.sendall(b'x'); s.recv(1); r.append(T() - t)
    r.sort(); B('net.rtt_median', r[len(r) // 2] * 1e6, 'us'); p.end()
def io(): p = P(); p.wait('OFF', 400, True); p.end()
class QMP:
    def __init__(s, path):
        e = T() + 20
        while 1:
            try: s.s = socket.socket(socket.AF_UNIX); s.s.connect(path); break
            except OSError:
                if T() > e: raise
                time.sleep(.05)
        s.f = s.s.makefile('rw'); s.f.readline(); s.c('qmp_capabilities'); s.ev = []
    def c(s, x, **a):
        s.f.write(json.dumps({'execute': x, 'arguments': a}) + '\n'); s.f.flush()
        while 1:
            r = json.loads(s.f.readline())
            if 'return' in r: return r['return']
            if 'error' in r: return r['error']
    def h(s, l): return s.c('human-monitor-command', **{'command-line': l})
def hb(p, secs): # longest gap between heartbeat lines
    out = []; e = T() + secs
    while T() < e:
        t, l = p.line(e - T())
        if l and l[0] == 'H': out.append((t, int(l[1:])))
    return out
def qargs(app, x=''): return './run-qemu.sh -m 512 ' + x + ' ' + CMD, app
def qsnap():
    W = D + '/work'; os.makedirs(W, exist_ok=True); q = W + '/snap.qcow2'; subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', q, '2G'])
    for fill in ('', 'ramfill'):
        os.environ.update(BENCH=fill or 'heartbeat', APPEND='hz=%s' % ('200' if fill else '5'))
        p = P('exec ./run-qemu.sh -m 512 -qmp unix:%s/q.sock,server=on,wait=off -drive file=%s,if=virtio,format=qcow2 %s' % (W, q, CMD)); p.wait('READY' if fill else 'H', 300); m = QMP(W + '/q.sock'); time.sleep(2); n = '_200MBrandom' if fill else '_idle'
        t = T(); e = m.h('savevm s1'); a = T() - t; t = T(); e2 = m.h('loadvm s1'); b = T() - t; B('snap.savevm' + n, a, 's'); B('snap.loadvm' + n, b, 's'); print('#', e, e2, m.h('info snapshots').split('\n')[-2:]); p.end(); m.h if 0 else None
        os.unlink(q); subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', q, '2G'])
    os.unlink(q)
def qmig():
    W = D + '/work'; os.makedirs(W, exist_ok=True)
    for fill in ('', 'ramfill'):
        os.environ.update(BENCH=fill or 'heartbeat', APPEND='hz=%s' % ('200' if fill else '5')); n = '_200MBrandom' if fill else '_idle'
        for f in ('a', 'b', 'm'):
            try: os.unlink(W + '/' + f + '.sock')
            except OSError: pass
        a = P('exec ./run-qemu.sh -m 512 -qmp unix:%s/a.sock,server=on,wait=off %s' % (W, CMD)); a.wait('READY' if fill else 'H', 300)
        b = P('exec ./run-qemu.sh -m 512 -incoming unix:%s/m.sock -qmp unix:%s/b.sock,server=on,wait=off %s' % (W, W, CMD)); ma = QMP(W + '/a.sock'); QMP(W + '/b.sock'); ma.c('migrate-set-parameters', **{'max-bandwidth': 10 ** 10}); time.sleep(2)
        while not a.q.empty(): a.q.get()
        t = T(); ma.c('migrate', uri='unix:%s/m.sock' % W)
        while 1:
            i = ma.c('query-migrate')
            if i.get('status') in ('completed', 'failed'): break
            time.sleep(.02)
        el = T() - t; time.sleep(2); la = [x for x in list(a.q.queue) if x[1] and x[1][0] == 'H']; fb = [x for x in list(b.q.queue) if x[1] and x[1][0] == 'H']
        print('#', i.get('status'), 'total-time', i.get('total-time'), 'ram MB', i.get('ram', {}).get('transferred', 0) / 1e6); B('mig.total' + n, i.get('total-time', 0) / 1e3, 's'); B('mig.downtime_qmp' + n, i.get('downtime', 0), 'ms')
        if la and fb: g = [y[0] - x[0] for x, y in zip(la, la[1:])]; B('mig.heartbeat_gap' + n, (fb[0][0] - la[-1][0]) * 1e3, 'ms'); print('# beats %s -> %s, usual gap %.1f ms' % (la[-1][1], fb[0][1], st.median(g) * 1e3 if g else 0))
        a.end(); b.end()
globals()[A.what]()
