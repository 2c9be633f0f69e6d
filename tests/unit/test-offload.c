// SPDX-License-Identifier: GPL-2.0-or-later
// What cards do for their guests: checksums, segmentation, fragments.
#include "core/machine/nic.h"
#include "devices/net/offload.h"
#include "tests/unit/net-frame.h"

#include <check.h>
#include <glib.h>
#include <stdlib.h>

START_TEST(checksum_by_the_definition)
{
    uint8_t data[100];
    for (unsigned length = 0; length <= sizeof data; length++) {
        uint32_t sum = 0;
        for (unsigned i = 0; i < length; i++) {
            data[i] = i * 37 + length;
            sum += i & 1 ? data[i] : data[i] << 8;
        }
        while (sum >> 16)
            sum = (sum & 0xffff) + (sum >> 16);
        ck_assert_uint_eq(checksum_add(data, length, 0), sum);
    }
}
END_TEST

static void collect(void *opaque, const uint8_t *frame, size_t length)
{
    g_ptr_array_add(opaque, g_bytes_new(frame, length));
}

START_TEST(segments_add_up)
{
    static uint8_t frame[60000];
    bool ip_good;
    size_t length = tcp_frame(frame, "\x52\x54\x00\x12\x34\x56", 50000), done = 0;
    g_autoptr(GPtrArray) pieces = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    ck_assert(segment_tcp(frame, length, 54, 1460, collect, pieces));
    ck_assert_uint_eq(pieces->len, 35);
    for (unsigned i = 0; i < pieces->len; i++) {
        gsize size;
        const uint8_t *piece = g_bytes_get_data(pieces->pdata[i], &size);
        ck_assert(checksum_verify(piece, size, &ip_good));
        ck_assert(ip_good);
        uint32_t sequence = GUINT32_FROM_BE(load_le(piece + 38, 4));
        ck_assert_uint_eq(sequence, 0x10000 + done);
        ck_assert_int_eq(memcmp(piece + 54, frame + 54 + done, size - 54), 0);
        ck_assert_uint_eq(piece[47] & 9, i + 1 == pieces->len ? 9 : 0); // FIN and PSH on the last
        done += size - 54;
    }
    ck_assert_uint_eq(done, 50000);
    ck_assert(finish_large(frame, length));
    ck_assert(checksum_verify(frame, length, &ip_good));
    ck_assert(!segment_tcp(frame, 40, 54, 1460, collect, pieces));
    ck_assert(!segment_tcp(frame, length, 10, 1460, collect, pieces));
    ck_assert(!segment_tcp(frame, length, 54, 0, collect, pieces));
}
END_TEST

static GByteArray *cut_bytes;
static unsigned cut_count;

static void take_cut(void *opaque, const uint8_t *frame, size_t length)
{
    bool ip_good;
    ck_assert_uint_le(length, 1514);
    checksum_verify(frame, length, &ip_good);
    ck_assert(ip_good);
    unsigned offset = (frame[20] << 8 | frame[21]) & 0x1fff;
    ck_assert_uint_eq(offset * 8, cut_bytes->len);
    ck_assert_uint_eq(!(frame[20] & 0x20), GPOINTER_TO_UINT(opaque) == cut_bytes->len + length - 34);
    g_byte_array_append(cut_bytes, frame + 34, length - 34);
    cut_count++;
}

// A datagram that is too long for the wire comes as IPv4 fragments that add up.
START_TEST(long_datagrams_are_fragmented)
{
    uint8_t frame[5034] = {0x52, 0x54, 0, 1, 2, 3, 0x52, 0x54, 0, 4, 5, 6, 8, 0, 0x45, 0, 5020 >> 8, 5020 & 255};
    frame[22] = 64;
    frame[23] = 17;
    for (unsigned i = 34; i < sizeof frame; i++)
        frame[i] = i * 7;
    cut_bytes = g_byte_array_new();
    cut_count = 0;
    ck_assert(cut_to_wire(frame, sizeof frame, 1514, take_cut, GUINT_TO_POINTER(5000)));
    ck_assert_uint_eq(cut_count, 4);
    ck_assert_uint_eq(cut_bytes->len, 5000);
    ck_assert_mem_eq(cut_bytes->data, frame + 34, 5000);
    frame[12] = 0x88; // no IP
    ck_assert(!cut_to_wire(frame, sizeof frame, 1514, take_cut, GUINT_TO_POINTER(5000)));
    g_byte_array_unref(cut_bytes);
}
END_TEST

// The offer of a SYN is raised and its checksum stays right, padding behind the packet or not; others are left alone.
START_TEST(segment_offers_are_raised)
{
    uint8_t frame[60];
    bool ip_good;
    tcp_frame(frame, "\x52\x54\x00\x12\x34\x56", 4);
    frame[46] = 0x60; // one word of options
    frame[47] = 2;    // SYN
    memcpy(frame + 54, "\x02\x04\x05\xb4", 4);
    finish_large(frame, 58);
    frame[58] = frame[59] = 0xee;
    ck_assert(checksum_verify(frame, 60, &ip_good));
    raise_segment_offer(frame, 60, 32768);
    ck_assert(checksum_verify(frame, 60, &ip_good) && ip_good);
    ck_assert_mem_eq(frame + 54, "\x02\x04\x80\x00", 4);
    store_be16(frame + 56, 536);
    finish_large(frame, 58);
    raise_segment_offer(frame, 60, 32768);
    ck_assert_mem_eq(frame + 54, "\x02\x04\x02\x18", 4);
    frame[55] = 0; // an option without end
    raise_segment_offer(frame, 60, 32768);
    frame[55] = 200;
    raise_segment_offer(frame, 60, 32768);
    for (unsigned length = 0; length < 60; length++)
        raise_segment_offer(frame, length, 32768);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("offload");
    TCase *tcase = tcase_create("offload");
    tcase_add_test(tcase, checksum_by_the_definition);
    tcase_add_test(tcase, segments_add_up);
    tcase_add_test(tcase, long_datagrams_are_fragmented);
    tcase_add_test(tcase, segment_offers_are_raised);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
