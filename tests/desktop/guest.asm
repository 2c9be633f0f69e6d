; SPDX-License-Identifier: GPL-2.0-or-later
; A boot sector for the tests of the desktop app: a green text screen, and a block in its first row for each key: white
; for "a", red for others. The keys are kept on the disk's second sector, so that they outlive a reset. "q" switches the
; PC off by ACPI (PIIX4 at 0x600, where SeaBIOS puts it).
        bits 16
        org 0x7c00
buffer  equ 0x7e00

start:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        mov [drive], dl
        mov ax, 0x0003          ; text, 80x25
        int 0x10
        mov ax, 0x0600          ; clear in green
        mov bh, 0x20
        xor cx, cx
        mov dx, 0x184f
        int 0x10
        mov ah, 1               ; no cursor
        mov cx, 0x2000
        int 0x10
        mov ax, 0x0201          ; what was typed before
        call disk
        call show
again:  xor ax, ax
        int 0x16
        cmp al, 'q'
        je off
        xor bx, bx
        mov bl, [buffer]
        cmp bl, 60
        jae again
        inc byte [buffer]
        mov [buffer + 1 + bx], al
        mov ax, 0x0301
        call disk
        call show
        jmp again

disk:   mov bx, buffer
        mov cx, 2
        xor dh, dh
        mov dl, [drive]
        int 0x13
        ret

show:   mov ax, 0xb800
        mov es, ax
        xor di, di
        mov si, buffer + 1
        xor cx, cx
        mov cl, [buffer]
        jcxz shown
next:   lodsb
        mov ah, 0x0c            ; red
        cmp al, 'a'
        jne other
        mov ah, 0x0f            ; white
other:  mov al, 0xdb            ; a full block
        stosw
        loop next
shown:  xor ax, ax
        mov es, ax
        ret

off:    mov dx, 0x604
        mov ax, 0x2000
        out dx, ax
        hlt

drive:  db 0
        times 510 - ($ - $$) db 0
        dw 0xaa55
