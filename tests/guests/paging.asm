; SPDX-License-Identifier: GPL-2.0-or-later
; The entry of the page-table tester (paging.c): multiboot, long mode with the first gibibyte mapped to itself (user access
; only at 6 MiB), exception stubs, and the accesses that may fault.
        bits 32
        section .multiboot progbits alloc noexec nowrite align=4
        dd 0x1badb002, 3, -(0x1badb002 + 3)
        section .text
; In struct cpu of paging.c, which the GS base points to.
FAULT_ADDRESS equ 8
FAULT_ERROR equ 16
PROBE_RSP equ 24
USER_RSP equ 32
FAULT_SEEN equ 40
PROBING equ 44
USER_STACK equ 48
        extern main, trap, ap_main, ap_stacks, shot
        global start, ap_begin, ap_end, gdt, stub_ipi, probe_read, probe_write, probe_fetch, run_user, user_begin, user_read, user_write, user_fetch, user_end
        global kernel_pdpt
start:  mov esp, stack
        mov ebp, [ebx+16]       ; the command line
        mov dword [kernel_pdpt], kernel_pd + 7
        mov edi, kernel_pd
        mov eax, 0x83
.pd:    mov [edi], eax
        add edi, 8
        add eax, 0x200000
        cmp eax, 0x40000083
        jne .pd
        or dword [kernel_pd + 3 * 8], 4
        mov dword [boot_pml4], kernel_pdpt + 7
        mov eax, boot_pml4
        mov cr3, eax
        mov eax, 0x20           ; PAE
        mov cr4, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x900           ; LME, NXE
        wrmsr
        mov eax, 0x80010031     ; PG, WP, NE, ET, PE
        mov cr0, eax
        lgdt [gdt_register]
        jmp 8:.long
        bits 64
.long:  mov eax, 16
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        mov edi, ebp
        call main
.halt:  cli
        hlt
        jmp .halt

; Another processor, copied to AP_AT: from real mode straight to long mode.
AP_AT   equ 0x8000
        bits 16
ap_begin:
        xor eax, eax
        mov ds, ax
        o32 lgdt [AP_AT + ap_gdt - ap_begin]
        mov eax, boot_pml4
        mov cr3, eax
        mov eax, 0x20           ; PAE
        mov cr4, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x900           ; LME, NXE
        wrmsr
        mov eax, 0x80010031     ; PG, WP, NE, ET, PE
        mov cr0, eax
        jmp dword 8:ap_long
ap_gdt: dw gdt_register - gdt - 1
        dd gdt
ap_end:
        bits 64
ap_long:
        mov eax, 16
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov edi, 1
        lock xadd [ap_count], edi
        inc edi                 ; its number, from 1
        mov eax, edi
        shl eax, 13
        lea rsp, [rax + ap_stacks + 8192]
        call ap_main
        jmp start.halt

stub_ipi:
        push rax
        push rcx
        push rdx
        push rsi
        push rdi
        push r8
        push r9
        push r10
        push r11
        cld
        call shot
        pop r11
        pop r10
        pop r9
        pop r8
        pop rdi
        pop rsi
        pop rdx
        pop rcx
        pop rax
        iretq

stub_pf:
        push rax
        mov rax, cr2
        mov [gs:FAULT_ADDRESS], rax
        mov rax, [rsp+8]
        mov [gs:FAULT_ERROR], rax
        mov dword [gs:FAULT_SEEN], 1
        test byte [rsp+24], 3
        jnz user_done
        cmp dword [gs:PROBING], 0
        je stub_other
        pop rax
        add rsp, 8
        mov qword [rsp], probe_end
        iretq
stub_other:
        mov rdi, rsp
        call trap

; Accesses of ring 0: rdi is the address, rsi a value. fault_seen tells.
probe_read:
        mov dword [gs:PROBING], 1
        mov [gs:PROBE_RSP], rsp
        mov rax, [rdi]
        jmp probe_end
probe_write:
        mov dword [gs:PROBING], 1
        mov [gs:PROBE_RSP], rsp
        mov [rdi], rsi
        jmp probe_end
probe_fetch:
        mov dword [gs:PROBING], 1
        mov [gs:PROBE_RSP], rsp
        call rdi
probe_end:
        mov rsp, [gs:PROBE_RSP]
        mov dword [gs:PROBING], 0
        ret

; The same in ring 3: rdx is one of the user_* below, as copied to where ring 3 may run.
run_user:
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov [gs:USER_RSP], rsp
        push qword 0x23
        push qword [gs:USER_STACK]
        push qword 2
        push qword 0x2b
        push rdx
        iretq
stub_user:
        push rax
user_done:
        pop rax
        mov rsp, [gs:USER_RSP]
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        ret

user_begin:
user_read:
        mov rax, [rdi]
        int 0x81
user_write:
        mov [rdi], rsi
        int 0x81
user_fetch:
        call rdi
        int 0x81
user_end:

        section .data
        align 16
gdt:    dq 0
        dq 0x00af9b000000ffff   ; 8: code
        dq 0x00cf93000000ffff   ; 16: data
        dq 0
        dq 0x00cff3000000ffff   ; 0x20: data of ring 3
        dq 0x00affb000000ffff   ; 0x28: code of ring 3
        times 8 dq 0            ; 0x30: the TSS of four processors
gdt_register:
        dw $ - gdt - 1
        dd gdt
        section .bss align=4096
boot_pml4:
        resb 4096
kernel_pdpt:
        resb 4096
kernel_pd:
        resb 4096
        resb 8192
stack:
ap_count: resd 1
        global stub_pf, stub_other, stub_user
