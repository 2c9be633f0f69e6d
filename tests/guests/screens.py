# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that are looked at: text is read off the screen by the font of the VGA BIOS, pages are known by their pixels."""
import struct
import time
import zlib

from guests import INITRD32, INITRD64, KERNEL32, KERNEL64, row
from harness import Failure, need

VGA_BIOS = "/usr/share/seabios/vgabios-stdvga.bin"
LETTER_A = bytes.fromhex("000010386cc6c6fec6c6c6c600000000")  # in the 8 x 16 font
GTK = "/usr/lib/debian-installer/images/12/amd64/gtk/debian-installer/amd64"
HIGHLIGHT = (0x2a, 0x86, 0x79)  # about the graphical installer's


# ---- Pictures ----
def unfilter(kind, line, above, bpp):
    """One row of a PNG picture, undone in place (PNG specification, section 9)."""
    if kind == 0:
        return line
    for i in range(len(line)):
        left = line[i - bpp] if i >= bpp else 0
        up = above[i]
        if kind == 1:
            add = left
        elif kind == 2:
            add = up
        elif kind == 3:
            add = (left + up) // 2
        else:
            corner = above[i - bpp] if i >= bpp else 0
            guess = left + up - corner
            add = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
        line[i] = (line[i] + add) & 255
    return line


def read_png(path):
    """Width, height and rows of bytes, three a pixel, of an 8-bit RGB picture."""
    with open(path, "rb") as f:
        data = f.read()
    position, packed = 8, b""
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position:position + 8])
        body = data[position + 8:position + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
        elif kind == b"IDAT":
            packed += body
        position += length + 12
    bpp = {2: 3, 6: 4}.get(colour)
    if depth != 8 or not bpp:
        raise Failure(f"the screenshot has {depth} bits and colour type {colour}")
    raw, rows, above = zlib.decompress(packed), [], bytearray(width * bpp)
    for y in range(height):
        start = y * (width * bpp + 1)
        above = unfilter(raw[start], bytearray(raw[start + 1:start + 1 + width * bpp]), above, bpp)
        if bpp == 3:
            rows.append(bytes(above))
        else:
            rows.append(b"".join(above[x:x + 3] for x in range(0, len(above), 4)))
    return width, height, rows


def look(guest):
    path = guest.path("screen.png")
    guest.control(("screendump", {"filename": path}))
    return read_png(path)


def wait_until(guest, what, test, pause=1.0):
    """What TEST makes of the screen once that is not None."""
    while time.monotonic() < guest.deadline:
        if guest.process.poll() is not None:
            guest.fail(f"the monitor ended while waiting for {what}")
        found = test(look(guest))
        if found is not None:
            return found
        time.sleep(pause)
    raise Failure(f"time limit of {guest.seconds:.0f} s while waiting for {what}")


# ---- Text ----
def font():
    with open(need(VGA_BIOS), "rb") as f:
        bios = f.read()
    start = bios.index(LETTER_A) - ord("A") * 16
    return {bios[start + c * 16:start + c * 16 + 16]: chr(c) for c in range(32, 127)}


def read_text(picture, glyphs):
    """The lines of an 80 x 25 text screen; what is not ASCII is a blank."""
    width, height, rows = picture
    if height != 400 or width not in (640, 720):
        return []
    cell = width // 80
    lines = []
    for top in range(0, 400, 16):
        line = ""
        for column in range(80):
            pixels = [rows[top + y][(column * cell) * 3:(column * cell + 8) * 3] for y in range(16)]
            back = pixels[0][:3]
            key = bytes(sum((row[x * 3:x * 3 + 3] != back) << (7 - x) for x in range(8)) for row in pixels)
            line += glyphs.get(key, " ")
        lines.append(line.rstrip())
    return lines


def text_installer(guest, kernel, initrd):
    glyphs = font()
    guest.start("--kernel", need(kernel), "--initrd", need(initrd), "--memory", "1G", "--control", guest.path("control"),
                "--append", "vga=normal nomodeset fb=false priority=high", serial="null")

    def page(*words):
        def test(picture):
            text = "\n".join(read_text(picture, glyphs))
            return text if all(word in text for word in words) else None
        return test

    wait_until(guest, "the language dialog", page("Select a language", "English", "Choose the language"), 2)
    guest.keys("ret")
    wait_until(guest, "the location dialog", page("Select your location", "United States"), 2)
    guest.stop()
    return "the language dialog was read off the screen, Return leads to the location dialog"


@row("installer-vga-amd64", "the Debian text installer on the VGA text screen, by keyboard", 600)
def installer_vga(guest):
    return text_installer(guest, KERNEL64, INITRD64)


@row("installer-vga-i386", "the same, 32 bits", 600)
def installer_vga_i386(guest):
    return text_installer(guest, KERNEL32, INITRD32)


# ---- The graphical installer ----
def highlighted(picture):
    """The middle of the highlighted line of a list: its row, or None."""
    width, _, rows = picture
    lit = [y for y, line in enumerate(rows)
           if sum(all(abs(line[x * 3 + c] - HIGHLIGHT[c]) < 24 for c in range(3)) for x in range(0, width, 16)) > 20]
    return sum(lit) // len(lit) if lit else None


def graphical_installer(guest, *arguments):
    guest.start("--kernel", need(f"{GTK}/linux"), "--initrd", need(f"{GTK}/initrd.gz"), "--memory", "1G", "--control",
                guest.path("control"), "--append", "vga=788 priority=high", *arguments, serial="null")
    first = wait_until(guest, "the language page", highlighted)
    time.sleep(2)
    guest.keys("down", "down", "down")

    def lower(picture):
        at = highlighted(picture)
        return at if at is not None and at > first else None
    second = wait_until(guest, "the highlight to move", lower)
    guest.stop()
    return f"language page; three keys move the highlight from line {first} to {second}"


@row("installer-gtk", "the graphical Debian installer to its language page, moved in by keyboard", 900)
def installer_gtk(guest):
    return graphical_installer(guest)
