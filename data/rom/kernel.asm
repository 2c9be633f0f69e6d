; SPDX-License-Identifier: GPL-2.0-or-later
; Option ROM that starts the Linux kernel which the monitor offers through fw_cfg: SeaBIOS calls it as a boot entry, so
; that the VGA BIOS has run and the kernel's own real-mode code can set the video mode it was asked for.
; (PnP BIOS Specification 1.0A, appendix B; Linux boot protocol, "The kernel start-up"; fw_cfg's DMA interface)
; Assembled with nasm; the monitor writes the checksum into byte 6.

        bits 16
        cpu 486
        org 0

FW_CFG_DMA_HIGH equ 0x514
FW_CFG_DMA_LOW  equ 0x518
DMA_READ        equ 2
DMA_SELECT      equ 8
DMA_ERROR       equ 1
SETUP_ADDRESS   equ 0x16            ; item: where the kernel's real-mode code goes
STACK_TOP       equ 0xe000          ; of that segment; the kernel's heap ends there

        dw 0xaa55
        db 1024 / 512
        jmp short initialise
        db 0                        ; 5: reserved
        db 0                        ; 6: checksum
        times 0x1a - ($ - $$) db 0
        dw pnp

initialise:                         ; nothing to do: SeaBIOS learns of the boot entry from the header
        mov ax, 0x20                ; attached as a boot device
        retf

pnp:    db "$PnP", 1, 2             ; revision, length in 16 bytes
        dw 0                        ; no further header
        db 0, 0                     ; reserved, checksum (not looked at)
        dd 0                        ; device id
        dw maker, product
        db 0, 0, 0, 0xe4            ; class; may be shadowed, is an initial program load device
        dw 0, 0, boot, 0, 0         ; connection, disconnect, boot entry, reserved, resources

maker:  db "Cloche", 0
product: db "Linux kernel", 0

; What to load: keys of fw_cfg for the address, the size and the bytes of each piece.
pieces: dw SETUP_ADDRESS, 0x17, 0x18         ; real-mode code
        dw 0x07, 0x08, 0x11         ; protected-mode code
        dw 0x0a, 0x0b, 0x12         ; initial RAM disk
        dw 0x13, 0x14, 0x15         ; command line
pieces_end:

boot:   cli
        cld
        mov ax, cs
        mov ds, ax
        mov ax, 0x0900              ; a stack of our own below everything that is loaded
        mov ss, ax
        mov esp, 0x0ff0
        mov si, pieces
.next:  mov ax, [si]
        call read_number
        mov ebx, edx                ; address
        mov ax, [si + 2]
        call read_number
        mov ecx, edx                ; size
        mov ax, [si + 4]
        jecxz .skip
        call read
.skip:  add si, 6
        cmp si, pieces_end
        jb .next

        mov ax, SETUP_ADDRESS
        call read_number
        shr edx, 4
        mov ax, dx
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        mov ss, ax
        mov esp, STACK_TOP
        add ax, 0x20                ; its second sector
        push ax
        push word 0
        retf

; The 32-bit item AX into EDX.
read_number:
        push ebx
        push ecx
        push dword 0
        mov bx, ss
        movzx ebx, bx
        shl ebx, 4
        movzx ecx, sp
        add ebx, ecx
        mov ecx, 4
        call read
        pop edx
        pop ecx
        pop ebx
        ret

; ECX bytes of item AX to physical address EBX. Halts the machine on an error.
read:   push eax
        push ebx
        push ecx
        push edx
        bswap ebx
        bswap ecx
        push ebx                    ; address, low half
        push dword 0                ; address, high half
        push ecx                    ; length
        movzx eax, ax
        shl eax, 16
        or al, DMA_READ | DMA_SELECT
        bswap eax
        push eax                    ; control
        xor eax, eax
        mov dx, FW_CFG_DMA_HIGH
        out dx, eax
        mov ax, ss
        shl eax, 4
        movzx edx, sp
        mov ebx, edx
        add eax, edx
        bswap eax
        mov dx, FW_CFG_DMA_LOW
        out dx, eax                 ; the transfer starts
.wait:  mov eax, [ss:bx]
        bswap eax
        test al, DMA_ERROR
        jnz .failed
        test eax, eax
        jnz .wait
        add sp, 16
        pop edx
        pop ecx
        pop ebx
        pop eax
        ret
.failed:
        hlt
        jmp .failed

        times 1024 - ($ - $$) db 0
