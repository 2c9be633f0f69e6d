// SPDX-License-Identifier: GPL-2.0-or-later
// The instruction table: all slices, and the search by mnemonic.
#include "core/cpu/interpret/avx512.h"
#include "core/cpu/interpret/interpret.h"

const struct insn_row *const interpret_slices[] = {
    interpret_rows_integer,
    interpret_rows_shift,
    interpret_rows_bits,
    interpret_rows_string,
    interpret_rows_flow,
    interpret_rows_transfer,
    interpret_rows_io,
    interpret_rows_system,
    interpret_rows_x87,
    interpret_rows_x87_function,
    interpret_rows_x87_control,
    interpret_rows_state,
    interpret_rows_mmx,
    interpret_rows_vector,
    interpret_rows_shuffle,
    interpret_rows_move,
    interpret_rows_text,
    interpret_rows_float,
    interpret_rows_fma,
    interpret_rows_avx,
    interpret_rows_crypto,
    interpret_rows_sha,
    NULL,
};

#define MNEMONICS (ZYDIS_MNEMONIC_MAX_VALUE + 1)
#define ROWS_MAX  4 // of one mnemonic

static const struct insn_row *by_mnemonic[MNEMONICS][ROWS_MAX];

static void fill(void)
{
    for (unsigned s = 0; interpret_slices[s]; s++)
        for (const struct insn_row *row = interpret_slices[s]; row->mnemonic; row++)
            for (unsigned k = 0; k < ROWS_MAX; k++)
                if (!by_mnemonic[row->mnemonic][k]) {
                    by_mnemonic[row->mnemonic][k] = row;
                    break;
                }
}

const struct insn_row *interpret_row(const struct decoded *d)
{
    static gsize filled;
    if (g_once_init_enter(&filled)) {
        fill();
        g_once_init_leave(&filled, 1);
    }
    if (is_avx512(&d->zydis))
        return &interpret_row_avx512;
    for (unsigned k = 0; k < ROWS_MAX; k++) {
        const struct insn_row *row = by_mnemonic[d->zydis.mnemonic][k];
        if (!row)
            return NULL;
        if ((!row->encoding || row->encoding == 1 + d->zydis.encoding) &&
            (!row->opcode_map || row->opcode_map == 1 + d->zydis.opcode_map))
            return row;
    }
    return NULL;
}
