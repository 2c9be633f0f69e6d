; SPDX-License-Identifier: GPL-2.0-or-later
; The entry of the page-table tester (paging.c): multiboot, long mode with the first gibibyte mapped to itself (user access
; only at 6 MiB), exception stubs, and the accesses that may fault.
        bits 32
        section .multiboot progbits alloc noexec nowrite align=4
        dd 0x1badb002, 3, -(0x1badb002 + 3)
        section .text
        extern main, trap
        global start, probe_read, probe_write, probe_fetch, run_user, user_begin, user_read, user_write, user_fetch, user_end
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
        call load_descriptors
        mov edi, ebp
        call main
.halt:  cli
        hlt
        jmp .halt

; The TSS, then C fills the IDT.
load_descriptors:
        mov eax, tss
        mov word [gdt.tss + 2], ax
        shr eax, 16
        mov byte [gdt.tss + 4], al
        mov byte [gdt.tss + 7], ah
        mov qword [tss + 4], trap_stack
        mov eax, gdt.tss - gdt
        ltr ax
        ret

stub_pf:
        push rax
        mov rax, cr2
        mov [fault_address], rax
        mov rax, [rsp+8]
        mov [fault_error], rax
        mov dword [fault_seen], 1
        test byte [rsp+24], 3
        jnz user_done
        cmp dword [probing], 0
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
        mov dword [probing], 1
        mov [probe_rsp], rsp
        mov rax, [rdi]
        jmp probe_end
probe_write:
        mov dword [probing], 1
        mov [probe_rsp], rsp
        mov [rdi], rsi
        jmp probe_end
probe_fetch:
        mov dword [probing], 1
        mov [probe_rsp], rsp
        call rdi
probe_end:
        mov rsp, [probe_rsp]
        mov dword [probing], 0
        ret

; The same in ring 3: rdx is one of the user_* below, as copied to where ring 3 may run.
run_user:
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov [user_rsp], rsp
        push qword 0x23
        push qword 0x700000
        push qword 2
        push qword 0x2b
        push rdx
        iretq
stub_user:
        push rax
user_done:
        pop rax
        mov rsp, [user_rsp]
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
.tss:   dq 0x0000890000000067, 0
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
trap_stack:
        resb 8192
stack:
tss:    resb 104
        alignb 8
        global fault_address, fault_error, fault_seen, stub_pf, stub_other, stub_user
fault_address: resq 1
fault_error: resq 1
probe_rsp: resq 1
user_rsp: resq 1
fault_seen: resd 1
probing: resd 1
