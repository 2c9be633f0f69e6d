; SPDX-License-Identifier: GPL-2.0-or-later
; A boot sector guest that shows every kind of video mode: sets it (VGA BIOS, then registers of its own), gives each DAC entry
; and palette register a known value, writes a known pattern, says so on COM1 and waits there for a byte. tests/guests/modes.py
; holds the same table and formulas, and computes what must be seen.
; Sectors: 1 this loader, 2 to 17 the program.
        bits 16
        org 0x7c00

start:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        mov ax, 0x0210
        mov bx, 0x7e00
        mov cx, 0x0002
        xor dh, dh
        int 0x13
        jnc main
        hlt
        times 510-($-$$) db 0
        dw 0xaa55

main:   mov si, table
.next:  lodsb
        cmp al, 0xff
        je finish
        mov [kind], al
        cld
        push si
        movzx bx, al
        shl bx, 1
        call [handlers + bx]
        pop si
        add si, 7
        mov al, 'M'
        call putc
.wait:  mov dx, 0x3fd
        in al, dx
        test al, 1
        jz .wait
        mov dx, 0x3f8
        in al, dx
        jmp .next
finish: mov al, 'E'
        call putc
        jmp $

putc:   mov ah, al
        mov dx, 0x3fd
.busy:  in al, dx
        test al, 0x20
        jz .busy
        mov al, ah
        mov dx, 0x3f8
        out dx, al
        ret

; ---- The table: kind, BIOS mode, then words: segment or width, height, bits per pixel ----
TEXT    equ 0
PLANAR  equ 1
CGA4    equ 2
CGA2    equ 3
LINEAR  equ 4
MODEX   equ 5
VBE     equ 6
SPLIT   equ 7
handlers: dw text, planar, cga, cga, linear, modex, vbe, split
%macro row 5
        db %1, %2
        dw %3, %4, %5
%endmacro
table:  row TEXT, 0x01, 0xb800, 0, 0
        row TEXT, 0x03, 0xb800, 0, 0
        row TEXT, 0x07, 0xb000, 0, 0
        row CGA4, 0x04, 0, 0, 0
        row CGA4, 0x05, 0, 0, 0
        row CGA2, 0x06, 0, 0, 0
        row PLANAR, 0x0d, 0, 0, 0
        row PLANAR, 0x0e, 0, 0, 0
        row PLANAR, 0x0f, 0, 0, 0
        row PLANAR, 0x10, 0, 0, 0
        row PLANAR, 0x11, 0, 0, 0
        row PLANAR, 0x12, 0, 0, 0
        row LINEAR, 0x13, 0, 0, 0
        row MODEX, 0x13, 0, 0, 0
        row SPLIT, 0x0d, 0, 0, 0
        row VBE, 0, 640, 480, 8
        row VBE, 0, 800, 600, 15
        row VBE, 0, 1024, 768, 16
        row VBE, 0, 800, 600, 24
        row VBE, 0, 1280, 1024, 32
        row VBE, 0, 1600, 1200, 16
        row VBE, 0, 2560, 1600, 8
        row VBE, 0, 2560, 1600, 32
        db 0xff
kind:   db 0

; ---- Common parts. SI: the row behind its kind ----
set_mode:
        mov ax, 0x01ce          ; VBE off
        mov dx, ax
        mov ax, 4
        out dx, ax
        inc dx
        xor ax, ax
        out dx, ax
        mov dx, 0x3c2           ; SeaBIOS counts on the colour ports when it leaves a monochrome mode
        mov al, 0x67
        out dx, al
        mov al, [si]
        xor ah, ah
        int 0x10
        ; falls through
colours:                        ; DAC entry i: 3i, 7i + 5, 11i + 9, all modulo 64
        mov dx, 0x3c8
        xor al, al
        out dx, al
        inc dx
        xor cx, cx
.dac:   mov al, cl
        mov bl, 3
        mul bl
        and al, 63
        out dx, al
        mov al, cl
        mov bl, 7
        mul bl
        add al, 5
        and al, 63
        out dx, al
        mov al, cl
        mov bl, 11
        mul bl
        add al, 9
        and al, 63
        out dx, al
        inc cx
        cmp cx, 256
        jb .dac
        mov dx, 0x3da           ; palette register i: i
        in al, dx
        mov dx, 0x3ba
        in al, dx
        mov dx, 0x3c0
        xor cx, cx
.pal:   mov al, cl
        out dx, al
        out dx, al
        inc cx
        cmp cx, 16
        jb .pal
        mov al, 0x20
        out dx, al
        ret

attribute:                      ; register BL of the attribute controller: BH
        mov dx, 0x3da
        in al, dx
        mov dx, 0x3ba
        in al, dx
        mov dx, 0x3c0
        mov al, bl
        out dx, al
        mov al, bh
        out dx, al
        mov al, 0x20
        out dx, al
        ret

; ---- Text: a font of our own, characters i, attributes 7i + i / 256, colours in place of blinking, no cursor ----
text:   call set_mode
        push si
        mov di, font            ; glyph row r of character c: 37c + 11r + (c xor r)
        xor cx, cx
.glyph: mov al, ch              ; ch = character, cl = row
        mov bl, 37
        mul bl
        mov bh, al
        mov al, cl
        mov bl, 11
        mul bl
        add bh, al
        mov al, ch
        xor al, cl
        add al, bh
        stosb
        inc cl
        cmp cl, 16
        jb .glyph
        xor cl, cl
        inc ch
        jnz .glyph
        mov ax, 0x1100
        mov bx, 0x1000
        mov cx, 256
        xor dx, dx
        mov bp, font
        int 0x10
        mov ah, 1
        mov cx, 0x2000
        int 0x10
        pop si
        mov bx, 0x0410          ; ninth dots of the line characters, no blinking
        cmp byte [si], 7
        jne .mode
        mov dx, 0x3b4           ; SeaBIOS does not reach this one
        mov ax, 0x0d14
        out dx, ax
        mov bh, 6
.mode:  call attribute
        push es
        mov es, [si + 1]
        xor di, di
        xor cx, cx
.cell:  mov al, cl
        mov bl, 7
        mul bl
        add al, ch
        mov ah, al
        mov al, cl
        stosw
        inc cx
        cmp cx, 2000
        jb .cell
        pop es
        ret

; ---- Planes: byte a of plane p: 5a + 3(a / 256) + 61p ----
fill_planes:                    ; CX bytes of each
        push es
        mov ax, 0xa000
        mov es, ax
        xor bp, bp
.plane: mov dx, 0x3c4
        mov al, 2
        out dx, al
        inc dx
        push cx
        mov cx, bp
        mov al, 1
        shl al, cl
        out dx, al
        pop cx
        push cx
        xor di, di
        mov ax, bp
        mov bl, 61
        mul bl
        mov si, ax
.byte:  mov ax, di
        mov bl, 5
        mul bl
        mov dl, al
        mov ax, di
        mov al, ah
        mov bl, 3
        mul bl
        add al, dl
        mov dx, si
        add al, dl
        stosb
        loop .byte
        pop cx
        inc bp
        cmp bp, 4
        jb .plane
        pop es
        ret
planar: call set_mode
        mov bx, 0x0f12
        call attribute
        mov cx, 38400
        jmp fill_planes

modex:  call set_mode
        mov dx, 0x3c4           ; no chain-4, no odd and even
        mov ax, 0x0604
        out dx, ax
        mov dx, 0x3d4           ; 240 lines; bytes, not double words
        mov ax, 0x2c11
        out dx, ax
        mov si, .crtc
        mov cx, 9
.reg:   lodsw
        out dx, ax
        loop .reg
        mov dx, 0x3c2
        mov al, 0xe3
        out dx, al
        mov cx, 19200
        jmp fill_planes
.crtc:  dw 0x0d06, 0x3e07, 0xea10, 0xac11, 0xdf12, 0xe715, 0x0616, 0x0014, 0xe317

split:  call set_mode
        mov bx, 0x0f12
        call attribute
        mov cx, 38400
        call fill_planes
        mov dx, 0x3d4           ; starts at 0x0123; from line 201 on at 0
        mov ax, 0x010c
        out dx, ax
        mov ax, 0x230d
        out dx, ax
        mov al, 0x11            ; registers 0 to 7 are open
        out dx, al
        inc dx
        in al, dx
        and al, 0x7f
        out dx, al
        dec dx
        mov ax, 200 << 8 | 0x18
        out dx, ax
        mov al, 7
        out dx, al
        inc dx
        in al, dx
        and al, 0xef
        out dx, al
        dec dx
        mov al, 9
        out dx, al
        inc dx
        in al, dx
        and al, 0xbf
        out dx, al
        mov bx, 0x0313          ; 3 pixels to the left, above the split only
        call attribute
        mov bx, 0x2110
        jmp attribute

; ---- Packed bytes: byte o: 7o + 13(o / 256) + 29(o / 65536) ----
fill_bank:                      ; ES:0, 64 KiB, bank BP
        xor di, di
.byte:  mov ax, di
        mov bl, 7
        mul bl
        mov dl, al
        mov ax, di
        mov al, ah
        mov bl, 13
        mul bl
        add dl, al
        mov ax, bp
        mov bl, 29
        mul bl
        add al, dl
        stosb
        test di, di
        jnz .byte
        ret
linear: call set_mode
        push es
        mov ax, 0xa000
        mov es, ax
        xor bp, bp
        call fill_bank
        pop es
        ret
cga:    call set_mode
        mov bx, 0x0312
        cmp byte [kind], CGA4
        je .mask
        mov bh, 1
.mask:  call attribute
        push es
        mov ax, 0xb800
        mov es, ax
        xor di, di
.byte:  mov ax, di              ; as packed bytes, 16 KiB
        mov bl, 7
        mul bl
        mov dl, al
        mov ax, di
        mov al, ah
        mov bl, 13
        mul bl
        add al, dl
        stosb
        cmp di, 0x4000
        jb .byte
        pop es
        ret

display:                        ; register BX of the display interface: AX
        push ax
        mov dx, 0x1ce
        mov ax, bx
        out dx, ax
        inc dx
        pop ax
        out dx, ax
        ret
vbe:    mov byte [si], 0x13
        call set_mode
        mov ax, [si + 1]
        mov bx, 1
        call display
        mov ax, [si + 3]
        mov bx, 2
        call display
        mov ax, [si + 5]
        mov bx, 3
        call display
        mov ax, 1
        mov bx, 4
        call display
        call colours
        movzx eax, word [si + 5] ; banks of the picture
        add eax, 7
        shr eax, 3
        movzx ecx, word [si + 1]
        mul ecx
        movzx ecx, word [si + 3]
        mul ecx
        add eax, 65535
        shr eax, 16
        mov cx, ax
        push es
        mov ax, 0xa000
        mov es, ax
        xor bp, bp
.bank:  push cx
        mov ax, bp
        mov bx, 5
        call display
        call fill_bank
        pop cx
        inc bp
        loop .bank
        pop es
        ret

        times 512 * 17 - ($ - $$) db 0
font    equ 0xc000
        times 1474560 - ($ - $$) db 0
