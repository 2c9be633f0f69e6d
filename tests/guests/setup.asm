; SPDX-License-Identifier: GPL-2.0-or-later
; A kernel file of the Linux boot protocol VERSION (0x200 to 0x202), loaded at 1 MiB with -dHIGH, else at 64 KiB. Its
; real-mode code reports on COM1: its own segment, sums of its protected-mode part (PAYLOAD bytes, which the test appends)
; and of the initial RAM disk, and the command line; then it ends through isa-debug-exit.
        bits 16
        org 0
        times 0x1f1 db 0
        db 1                    ; sectors of real-mode code behind this one
        times 0x1fe - ($ - $$) db 0
        dw 0xaa55
        jmp short start         ; 0x200
        db "HdrS"
        dw VERSION
        dd 0                    ; 0x208
        dw 0, 0
        db 0                    ; 0x210: loader
%ifdef HIGH
        db 1                    ; 0x211: loaded high
        %define KERNEL 0x100000
%else
        db 0
        %define KERNEL 0x10000
%endif
        dw 0
        dd KERNEL               ; 0x214
ramdisk: dd 0, 0                ; 0x218: address and size
        dd 0
        dw 0, 0                 ; 0x224
line:   dd 0                    ; 0x228
        times 0x270 - ($ - $$) db 0

start:  push cs                 ; entered at the second sector, 32 paragraphs behind the first
        pop ax
        sub ax, 0x20
        push ax
        push main
        retf
main:   mov ds, ax
        movzx eax, ax
        mov si, t_segment
        call report
        cli                     ; unreal mode: fs with a limit of 4 GiB
        mov eax, ds
        shl eax, 4
        add [gdtr + 2], eax
        lgdt [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp short $ + 2
        mov bx, 8
        mov fs, bx
        and al, 0xfe
        mov cr0, eax
        jmp short $ + 2
        xor ax, ax
        mov fs, ax
        in al, 0x92             ; A20
        or al, 2
        and al, 0xfe
        out 0x92, al

        mov edi, KERNEL
        mov ecx, PAYLOAD
        mov si, t_kernel
        call sum
        mov edi, [ramdisk]
        mov ecx, [ramdisk + 4]
        mov si, t_ramdisk
        call sum
%if VERSION < 0x202
        cmp word [0x20], 0xa33f
        jne failed
        movzx edi, word [0x22]
        mov eax, ds
        shl eax, 4
        add edi, eax
%else
        mov edi, [line]
%endif
.next:  mov al, [fs:edi]
        test al, al
        jz .end
        call putc
        inc edi
        jmp .next
.end:   mov al, 10
        call putc
        mov al, 0x11
exit:   mov dx, 0x501
        out dx, al
        hlt
failed: mov al, 0x12
        jmp exit

; The sum over ECX bytes at EDI that depends on their order, reported by the name SI.
sum:    mov eax, 1
.next:  jecxz report
        movzx edx, byte [fs:edi]
        imul eax, eax, 31
        add eax, edx
        inc edi
        dec ecx
        jmp .next

report: push eax                ; si: name, eax: value
.name:  lodsb
        test al, al
        jz .value
        call putc
        jmp .name
.value: pop eax
        mov cx, 8
.next:  rol eax, 4
        push eax
        and al, 15
        add al, '0'
        cmp al, '9'
        jbe .out
        add al, 'a' - '0' - 10
.out:   call putc
        pop eax
        loop .next
        mov al, 10
putc:   push dx
        push ax
        mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x20
        jz .wait
        pop ax
        mov dx, 0x3f8
        out dx, al
        pop dx
        ret

t_segment: db "segment ", 0
t_kernel:  db "kernel ", 0
t_ramdisk: db "ramdisk ", 0
        align 8
gdt:    dq 0
        dq 0x00cf93000000ffff
gdtr:   dw 15
        dd gdt
        times 1024 - ($ - $$) db 0
