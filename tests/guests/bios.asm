; SPDX-License-Identifier: GPL-2.0-or-later
; A boot sector guest that uses BIOS services, unreal mode and VBE, reports on COM1 and ends through isa-debug-exit.
; Sectors: 1 this loader, 2 to 9 the program, 20 (0-based) a page with the host's nonce.
        bits 16
        org 0x7c00

start:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        mov [drive], dl
        mov ax, 0x0208          ; read 8 sectors behind this one
        mov bx, 0x7e00
        mov cx, 0x0002
        xor dh, dh
        int 0x13
        jc failed
        jmp main
failed: mov al, 'F'
        mov dx, 0xe9
        out dx, al
        mov al, 2
        mov dx, 0x501
        out dx, al
        hlt
drive:  db 0
        times 510-($-$$) db 0
        dw 0xaa55

; ---- output on COM1 ----
putc:   push dx
        push ax
.wait:  mov dx, 0x3fd
        in al, dx
        test al, 0x20
        jz .wait
        pop ax
        mov dx, 0x3f8
        out dx, al
        pop dx
        ret
puts:   lodsb                   ; ds:si, zero-terminated
        test al, al
        jz .end
        call putc
        jmp puts
.end:   ret
hex32:  mov cx, 8               ; eax
.next:  rol eax, 4
        push eax
        and al, 15
        add al, '0'
        cmp al, '9'
        jbe .out
        add al, 'a'-'0'-10
.out:   call putc
        pop eax
        loop .next
        ret
report: push eax                ; si: name, eax: value
        call puts
        pop eax
        call hex32
        mov al, 10
        jmp putc

; ---- the program ----
main:   xor eax, eax
        int 0x12                ; base memory in KiB
        movzx eax, ax
        mov si, t_base
        call report

        xor ebx, ebx            ; memory map: entries and bytes of RAM
        xor ebp, ebp
        mov dword [ram], 0
e820:   mov eax, 0xe820
        mov edx, 0x534d4150
        mov ecx, 24
        mov di, buffer
        int 0x15
        jc .end
        inc ebp
        cmp dword [buffer+16], 1
        jne .skip
        mov eax, [buffer+8]
        add [ram], eax
.skip:  test ebx, ebx
        jnz e820
.end:   mov eax, ebp
        mov si, t_e820
        call report
        mov eax, [ram]
        mov si, t_ram
        call report

        mov ax, 0x0201          ; the nonce: sector 20 is cylinder 0, head 1, sector 3 of a floppy
        mov bx, 0x9000
        mov cx, 0x0003
        mov dh, 1
        mov dl, [drive]
        int 0x13
        jc failed
        mov si, 0x9000          ; a sum that depends on the order
        mov cx, 512
        mov eax, 1
.sum:   movzx edx, byte [si]
        imul eax, eax, 31
        add eax, edx
        inc si
        loop .sum
        mov si, t_sum
        call report

        cli                     ; unreal mode: fs with a limit of 4 GiB
        lgdt [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp short $+2
        mov bx, 8
        mov fs, bx
        and al, 0xfe
        mov cr0, eax
        jmp short $+2
        xor ax, ax
        sti
        in al, 0x92             ; A20
        or al, 2
        and al, 0xfe
        out 0x92, al
        mov edi, 0x00200000
        mov dword [fs:edi], 0x600df00d
        mov eax, [fs:edi]
        mov si, t_unreal
        call report

        mov ax, 0xffff          ; the A20 gate: closed by the BIOS, opened by the keyboard controller
        mov gs, ax
        mov word [gs:0x510], 0x1111
        mov ax, 0x2400
        int 0x15
        jc failed
        mov word [0x500], 0x2222
        mov bx, [gs:0x510]      ; closed: the same byte as [0x500]
        mov word [gs:0x512], 0x3333
        call kbc
        mov al, 0xd1
        out 0x64, al
        call kbc
        mov al, 0xdf
        out 0x60, al
        call kbc
        movzx eax, bx
        shl eax, 16
        mov ax, [gs:0x510]      ; open: the byte behind the first mebibyte
        add ax, [0x502]
        mov si, t_a20
        call report

        mov ax, 0x4f01          ; VBE mode 0x118: 1024 x 768, with its frame buffer
        mov cx, 0x0118
        mov di, buffer
        int 0x10
        cmp ax, 0x004f
        jne failed
        mov ax, 0x4f02
        mov bx, 0x4118
        int 0x10
        cmp ax, 0x004f
        jne failed
        mov edi, [buffer+40]
        mov ecx, 1024*4
        xor eax, eax
.fill:  mov [fs:edi], eax       ; a ramp into the first lines
        add edi, 4
        add eax, 0x010203
        dec ecx
        jnz .fill
        mov edi, [buffer+40]
        mov ecx, 1024*4
        xor eax, eax
.read:  add eax, [fs:edi]
        rol eax, 1
        add edi, 4
        dec ecx
        jnz .read
        mov si, t_vbe
        call report

        mov ah, 0               ; two timer ticks go by: interrupts work
        int 0x1a
        mov bx, dx
.tick:  hlt
        mov ah, 0
        int 0x1a
        sub dx, bx
        cmp dx, 2
        jb .tick
        mov si, t_done
        call puts
        mov al, 0x10
        mov dx, 0x501
        out dx, al
        hlt

kbc:    in al, 0x64             ; until the keyboard controller takes a byte
        test al, 2
        jnz kbc
        ret

t_base:   db "base ", 0
t_e820:   db "map ", 0
t_ram:    db "ram ", 0
t_sum:    db "sum ", 0
t_unreal: db "unreal ", 0
t_a20:    db "a20 ", 0
t_vbe:    db "vbe ", 0
t_done:   db "ticks", 10, 0
        align 8
gdt:    dq 0
        dq 0x00cf93000000ffff
gdtr:   dw 15
        dd gdt
ram:    dd 0
        times 512*9-($-$$) db 0
buffer  equ 0xa000
