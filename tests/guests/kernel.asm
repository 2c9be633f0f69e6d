; SPDX-License-Identifier: GPL-2.0-or-later
; A kernel of a page: started by multiboot, or with -dPVH by Xen's PVH entry. Reports on COM1 what its loader gave to it,
; then ends through isa-debug-exit, or with "fault" as the first word of its command line by a triple fault.
        bits 32
%ifdef PVH
        section .note.Xen note alloc noexec nowrite align=4
        dd 4, 4, 18
        db "Xen", 0
        dd start
%else
        section .multiboot progbits alloc noexec nowrite align=4
        dd 0x1badb002, 3, -(0x1badb002 + 3)
%endif
        section .text
        global start
start:  mov esp, stack
        mov ebp, ebx
%ifdef PVH
        mov eax, [ebp]          ; start info: magic, command line at 24, modules at 12 and 16
        mov si, 0
        push dword [ebp+12]
        push dword [ebp+24]
        mov edx, [ebp+16]
        mov edi, [edx]          ; first module: address and size
        mov ecx, [edx+8]
%else
        push dword [ebp+20]     ; multiboot information: modules at 20 and 24, command line at 16
        push dword [ebp+16]
        mov edx, [ebp+24]
        mov edi, [edx]
        mov ecx, [edx+4]
        sub ecx, edi
%endif
        mov bl, 'M'             ; the loader's magic number
        call report
        mov eax, 1              ; a sum over the module that depends on the order
.sum:   test ecx, ecx
        jz .sum_end
        movzx edx, byte [edi]
        imul eax, eax, 31
        add eax, edx
        inc edi
        dec ecx
        jmp .sum
.sum_end:
        mov bl, 'S'
        call report
        pop esi                 ; the command line
        cmp dword [esi], 'faul'
        jne .line
        lidt [no_idt]
        ud2
.line:  lodsb
        test al, al
        jz .line_end
        call putc
        jmp .line
.line_end:
        mov al, 10
        call putc
        pop eax
        mov bl, 'N'             ; number of modules
        call report
        mov al, 0x11
        mov dx, 0x501
        out dx, al
.halt:  hlt
        jmp .halt

putc:   push edx
        push eax
.wait:  mov dx, 0x3fd
        in al, dx
        test al, 0x20
        jz .wait
        pop eax
        mov dx, 0x3f8
        out dx, al
        pop edx
        ret
report: push ecx                ; a letter in bl, the value in eax
        push eax
        mov al, bl
        call putc
        pop eax
        mov ecx, 8
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
        mov al, 10
        call putc
        pop ecx
        ret
no_idt: dw 0
        dd 0
        section .bss
        resb 4096
stack:
