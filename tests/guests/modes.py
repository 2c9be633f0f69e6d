# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of video mode, set and drawn by modes.asm, against pictures that are computed here from the standard's words: never
from what the adapter shows."""
from guests import assemble, row
from harness import Failure
from viewer import Viewer

DAC = [((3 * i) & 63, (7 * i + 5) & 63, (11 * i + 9) & 63) for i in range(256)]
RGB = [bytes((b << 2 | b >> 4, g << 2 | g >> 4, r << 2 | r >> 4, 0)) for r, g, b in DAC]  # as the viewer has it


def glyph_row(c, r):
    return (37 * c + 11 * r + (c ^ r)) & 255


def plane_byte(p, a):
    return (5 * a + 3 * (a >> 8) + 61 * p) & 255


def packed_bytes(count):
    """Byte o is 7o + 13(o / 256) + 29(o / 65536): blocks of 256 differ by a constant only."""
    blocks = [bytes((7 * i + c) & 255 for i in range(256)) for c in range(256)]
    return b"".join(blocks[(13 * k + 29 * (k >> 8)) & 255] for k in range((count + 255) // 256))[:count]


def doubled(line, times):
    return b"".join(line[i:i + 4] * times for i in range(0, len(line), 4)) if times > 1 else line


def text(columns, dots, mono):
    """80 or 40 columns, 8x16 characters in cells of DOTS; a ninth dot goes on for the line characters only."""
    lines = []
    for y in range(400):
        line = b""
        for x in range(columns):
            i = y // 16 * columns + x
            c, a, r = i & 255, (7 * (i & 255) + (i >> 8)) & 255, y % 16
            bits = glyph_row(c, r)
            ink, paper = RGB[a & 15], RGB[a >> 4]
            underlined = mono and a & 0x77 == 1 and r == 13
            cell = b"".join(ink if underlined or bits & 0x80 >> d else paper for d in range(8))
            if dots == 9:
                cell += cell[28:32] if underlined or 0xC0 <= c <= 0xDF else paper
            line += cell
        lines.append(doubled(line, 80 // columns))
    return columns * dots * (80 // columns), 400, b"".join(lines)


def planar_line(start, columns, shift=0):
    values = []
    for a in range(start, start + columns + 1):
        planes = [plane_byte(p, a & 0xFFFF) for p in range(4)]
        values += [RGB[sum((planes[p] >> 7 - b & 1) << p for p in range(4))] for b in range(8)]
    return b"".join(values[shift:shift + 8 * columns])


def planar(width, height, scale_x, scale_y):
    columns = width // 8
    lines = [doubled(planar_line(y * columns, columns), scale_x) * scale_y for y in range(height)]
    return width * scale_x, height * scale_y, b"".join(lines)


def split():
    """Mode 0Dh from 0x123 on, 3 pixels to the left, until line 200; the lower part from 0 on, in its place."""
    lines = []
    for y in range(400):
        if y <= 200:
            lines.append(doubled(planar_line(0x123 + y // 2 * 40, 40, 3), 2))
        else:
            lines.append(doubled(planar_line((y - 201) // 2 * 40, 40), 2))
    return 640, 400, b"".join(lines)


def cga(bits):
    width, per_byte = (320, 4) if bits == 2 else (640, 8)
    lines = []
    for y in range(200):
        start = (y & 1) * 0x2000 + (y >> 1) * 80
        line = b""
        for a in range(start, start + 80):
            value = (7 * a + 13 * (a >> 8)) & 255
            line += b"".join(RGB[value >> 8 - bits - bits * i & (1 << bits) - 1] for i in range(per_byte))
        lines.append(doubled(line, 640 // width) * 2)
    return 640, 400, b"".join(lines)


def linear():
    data = packed_bytes(64000)
    lines = [doubled(b"".join(RGB[v] for v in data[y * 320:y * 320 + 320]), 2) * 2 for y in range(200)]
    return 640, 400, b"".join(lines)


def mode_x():
    lines = []
    for y in range(240):
        line = b"".join(RGB[plane_byte(x & 3, y * 80 + x // 4)] for x in range(320))
        lines.append(doubled(line, 2) * 2)
    return 640, 480, b"".join(lines)


def high_colour(value, green):
    r, g, b = value >> 5 + green & 31, value >> 5 & (1 << green) - 1, value & 31
    return bytes((b << 3 | b >> 2, g << 8 - green | g >> 2 * green - 8, r << 3 | r >> 2, 0))


def vbe(width, height, bits):
    count = width * height
    data = packed_bytes(count * ((bits + 7) // 8))
    if bits == 8:
        return width, height, b"".join(RGB[v] for v in data)
    if bits in (15, 16):
        colours = [high_colour(v, bits - 10) for v in range(1 << 16)]
        return width, height, b"".join(colours[v] for v in memoryview(data).cast("H"))
    out, size = bytearray(4 * count), bits // 8
    for i in range(3):
        out[i::4] = data[i::size]
    return width, height, bytes(out)


# The same rows as in modes.asm.
MODES = [
    ("01h text", lambda: text(40, 9, False)), ("03h text", lambda: text(80, 9, False)), ("07h text", lambda: text(80, 9, True)),
    ("04h", lambda: cga(2)), ("05h", lambda: cga(2)), ("06h", lambda: cga(1)),
    ("0Dh", lambda: planar(320, 200, 2, 2)), ("0Eh", lambda: planar(640, 200, 1, 2)), ("0Fh", lambda: planar(640, 350, 1, 1)),
    ("10h", lambda: planar(640, 350, 1, 1)), ("11h", lambda: planar(640, 480, 1, 1)), ("12h", lambda: planar(640, 480, 1, 1)),
    ("13h", linear), ("X", mode_x), ("split", split),
    ("640x480x8", lambda: vbe(640, 480, 8)), ("800x600x15", lambda: vbe(800, 600, 15)), ("1024x768x16", lambda: vbe(1024, 768, 16)),
    ("800x600x24", lambda: vbe(800, 600, 24)), ("1280x1024x32", lambda: vbe(1280, 1024, 32)),
    ("1600x1200x16", lambda: vbe(1600, 1200, 16)), ("2560x1600x8", lambda: vbe(2560, 1600, 8)),
    ("2560x1600x32", lambda: vbe(2560, 1600, 32)),
]


def first_difference(width, ours, expected):
    for i in range(0, len(expected), 4):
        if ours[i:i + 3] != expected[i:i + 3]:
            wrong = sum(ours[k:k + 3] != expected[k:k + 3] for k in range(0, len(expected), 4))
            return f"{wrong} pixels; at {i // 4 % width}, {i // 4 // width} {ours[i:i + 3].hex()} in place of {expected[i:i + 3].hex()} (bgr)"
    return None


def modes(guest, adapter):
    image = assemble(guest, "modes.asm", "modes.img")
    guest.start("--memory", "64M", "--floppy", image, "--boot", "a", "--display-adapter", adapter,
                "--display", "vnc=unix:" + guest.path("vnc"))
    viewer = Viewer(guest.path("vnc"))
    bad = []
    for number, (name, reference) in enumerate(MODES):
        while b"M" not in guest.output[guest.position:]:
            viewer.serve(.05)
            guest.pump(0)
            if len(guest.output) == 0 and guest.process.poll() is not None:
                guest.fail("the monitor ended")
        guest.expect("M")
        width, height, expected = reference()
        try:
            viewer.until(lambda: (viewer.width, viewer.height) == (width, height), 10, "the size")
        except Failure:
            bad.append(f"{name}: {viewer.width}x{viewer.height} in place of {width}x{height}")
            guest.send("n")
            continue
        try:
            viewer.until(lambda: bytes(viewer.picture) == expected, 10, "the picture")
        except Failure:
            difference = first_difference(width, viewer.picture, expected)
            if difference:
                bad.append(f"{name}: {difference}")
                viewer.save(guest.path(f"mode{number}.ppm"))
        guest.send("n")
    guest.expect("E")
    guest.stop()
    if bad:
        raise Failure("; ".join(bad))
    return f"{len(MODES)} modes, every pixel as computed"


@row("video-modes", "every kind of VGA and VBE mode by a guest of our own, against computed pictures", 200, quick=True)
def video_modes(guest):
    return modes(guest, "vga")


@row("video-modes-virtio", "the same on virtio-gpu before its driver runs", 200)
def video_modes_virtio(guest):
    return modes(guest, "virtio-gpu")
