// SPDX-License-Identifier: GPL-2.0-or-later
// What people write about a cable and a card: rate=10M,delay=5,..., and addresses.
#include "core/machine/nic.h"

#include <string.h>

#define MILLISECOND 1000000ll

static bool parse_rate(const char *text, double unit, uint64_t *value)
{
    char *end;
    double number = g_ascii_strtod(text, &end);
    double factor = *end == 'K' || *end == 'k' ? 1e3 : *end == 'M' ? 1e6 : *end == 'G' ? 1e9 : 1;
    if (end == text || number < 0 || number > 1e12 || (*end && (factor == 1 || end[1])))
        return false;
    *value = number * factor * unit;
    return true;
}

static bool parse_seed(struct nic *nic, const char *text)
{
    guint64 seed;
    if (!g_ascii_string_to_unsigned(text, 10, 0, UINT64_MAX, &seed, NULL))
        return false;
    nic_seed(nic, seed);
    return true;
}

static bool set_shape(struct nic *nic, const char *key, const char *value, GError **error)
{
    uint64_t loss = 0;
    bool good = !strcmp(key, "rate")     ? parse_rate(value, 1, &nic->shape.rate)
                : !strcmp(key, "delay")  ? parse_rate(value, MILLISECOND, &nic->shape.delay)
                : !strcmp(key, "jitter") ? parse_rate(value, MILLISECOND, &nic->shape.jitter)
                : !strcmp(key, "seed")   ? parse_seed(nic, value)
                                         : parse_rate(value, 10000, &loss) && loss <= 1000000;
    if (!strcmp(key, "loss"))
        nic->shape.loss = loss;
    if (!strcmp(key, "rate")) // the next frame finds the line free
        nic->to_guest.line_free = nic->to_network.line_free = 0;
    if (!good || nic->shape.delay > 60000 * (uint64_t)MILLISECOND ||
        nic->shape.jitter > 60000 * (uint64_t)MILLISECOND) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s: %s=%s is not allowed: give rate=10M (bits per second), delay=5 and jitter=2 (milliseconds, up "
                    "to 60000), loss=1.5 (percent), seed=1 (a number).",
                    nic->id, key, value);
        return false;
    }
    return true;
}

bool nic_set_shape(struct nic *nic, const char *settings, GError **error)
{
    static const char *const keys[] = {"rate", "delay", "jitter", "loss", "seed", NULL};
    g_auto(GStrv) parts = g_strsplit(settings, ",", -1);
    bool done = true;
    g_mutex_lock(&nic->lock);
    for (char **part = parts; *part && done; part++) {
        char *value = strchr(*part, '=');
        if (value)
            *value++ = '\0';
        done = value && g_strv_contains(keys, *part) && set_shape(nic, *part, value, error);
        if (!done && error && !*error)
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                        "%s: there is no setting \"%s\" of the cable: rate, delay, jitter, loss and seed are.", nic->id,
                        *part);
    }
    g_mutex_unlock(&nic->lock);
    return done;
}

bool nic_take_settings(struct nic *nic, const char *settings, GError **error)
{
    static const char *const cable[] = {"rate", "delay", "jitter", "loss", "seed", NULL};
    g_auto(GStrv) parts = g_strsplit(settings ? settings : "", ",", -1);
    for (char **part = parts; *part; part++) {
        char *value = strchr(*part, '=');
        if (!**part)
            continue;
        if (value)
            *value++ = '\0';
        if (!value || !*value) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                        "%s: the setting \"%s\" has no value: give %s=VALUE.", nic->id, *part, *part);
            return false;
        }
        if (g_strv_contains(cable, *part)) {
            if (!set_shape(nic, *part, value, error))
                return false;
        } else if (!strcmp(*part, "link")) {
            nic->link = strcmp(value, "off") != 0;
        } else {
            g_hash_table_insert(nic->settings, g_strdup(*part), g_strdup(value));
        }
    }
    const char *file = g_hash_table_lookup(nic->settings, "capture");
    return !file || nic_capture_start(nic, file, error);
}

bool nic_parse_mac(struct nic *nic, const char *text, GError **error)
{
    if (!text || !*text) { // locally administered, the same at every start
        g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, nic->id, -1);
        static const uint8_t prefix[] = {0x52, 0x54, 0x00};
        memcpy(nic->mac, prefix, 3);
        for (unsigned i = 0; i < 3; i++)
            nic->mac[3 + i] = g_ascii_xdigit_value(sum[2 * i]) << 4 | g_ascii_xdigit_value(sum[2 * i + 1]);
        return true;
    }
    g_auto(GStrv) parts = g_strsplit(text, ":", -1);
    bool good = g_strv_length(parts) == 6;
    for (unsigned i = 0; i < 6 && good; i++) {
        int high = g_ascii_xdigit_value(parts[i][0]), low = high < 0 ? -1 : g_ascii_xdigit_value(parts[i][1]);
        good = high >= 0 && low >= 0 && !parts[i][2];
        nic->mac[i] = high << 4 | low;
    }
    if (good && !(nic->mac[0] & 1))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "%s: \"%s\" is no address of a card: give one such as 52:54:00:12:34:56, with an even first byte.",
                nic->id, text);
    return false;
}
