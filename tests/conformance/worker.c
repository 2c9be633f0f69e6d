// SPDX-License-Identifier: GPL-2.0-or-later
// One worker process: its share of the forms, on the host and on the engine, or from and to a recording.
#include "tests/conformance/conformance.h"

struct worker {
    const struct work *work;
    struct guest *guest;
    struct recording *recording;
    uint8_t *expected_data; // the host's data area, or a copy when results come from a file
    uint8_t pattern[DATA_ALL];
};

static void fill_windows(const struct vector *v, uint8_t *data)
{
    for (unsigned k = 0; k < 2; k++)
        if (v->window[k].size && v->window[k].address + v->window[k].size <= DATA_READONLY)
            memcpy(data + (v->window[k].address - DATA_BASE), v->window[k].bytes, v->window[k].size);
}

// Memory as the vector wants it. Recordings start each vector from the pattern, else memory goes on from the last one.
static void prepare(struct worker *w, const struct vector *v)
{
    if (w->recording) {
        memcpy(w->expected_data, w->pattern, DATA_SIZE);
        memcpy(guest_data(w->guest), w->pattern, DATA_SIZE);
    }
    fill_windows(v, w->expected_data);
    fill_windows(v, guest_data(w->guest));
}

// What should come out. False: the recording does not fit.
static bool expect(struct worker *w, const struct vector *v, struct outcome *expected)
{
    if (w->work->replay)
        return recording_read(w->recording, v, expected, w->expected_data);
#ifdef __x86_64__
    uint8_t before[DATA_ALL];
    if (w->recording)
        memcpy(before, w->expected_data, DATA_ALL);
    native_run(v, expected);
    return !w->recording || recording_write(w->recording, v, expected, before, w->expected_data);
#else
    return false;
#endif
}

static void report(const struct worker *w, struct form *f, const struct vector *v, const GString *differences)
{
    if (f->failures++ >= w->work->show)
        return;
    g_autoptr(GString) text = g_string_new(NULL);
    describe_vector(v, text);
    g_string_append(text, differences->str);
    fwrite(text->str, 1, text->len, stdout);
}

static void count(const struct worker *w, const struct form *f)
{
    struct tally *tally = w->work->tally;
    atomic_fetch_add(&tally->vectors, f->vectors);
    atomic_fetch_add(&tally->failures, f->failures);
    if (f->failures) {
        atomic_fetch_add(&tally->failed_forms, 1);
        printf("FAILED %s: %u of %u\n", f->key, f->failures, f->vectors);
    }
    if (!f->vectors) {
        atomic_fetch_add(&tally->unreachable, 1);
        printf("NO VECTOR %s: give a reason in the list of excluded forms\n", f->key);
    }
}

// How often an instance is looked for when few vectors are wanted: some forms need luck.
#define ATTEMPTS_MIN 40

static bool run_form(struct worker *w, struct form *f, struct random *r)
{
    static struct vector v;
    uint64_t wanted = w->work->per_form, attempts = wanted < ATTEMPTS_MIN ? ATTEMPTS_MIN : wanted;
    for (uint64_t n = 0; n < attempts && f->vectors < wanted; n++) {
        struct outcome expected, got;
        if (!generate(r, f, &v))
            continue;
        g_autoptr(GString) text = g_string_new(NULL);
        prepare(w, &v);
        if (!expect(w, &v, &expected))
            return false;
        guest_run(w->guest, &v, &got);
        f->vectors++;
        if (!compare_outcomes(&v, &expected, &got, w->expected_data, guest_data(w->guest), text))
            report(w, f, &v, text);
    }
    count(w, f);
    return true;
}

static bool start_host(struct worker *w, GError **error)
{
#ifdef __x86_64__
    if (!w->work->replay) {
        if (!native_init(error))
            return false;
        w->expected_data = native_data();
        return true;
    }
#else
    if (!w->work->replay) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "Only an x86-64 host can tell the expected results: use --replay with a recording.");
        return false;
    }
#endif
    w->expected_data = g_malloc(DATA_ALL);
    return true;
}

static bool start_recording(struct worker *w, GError **error)
{
    const struct work *k = w->work;
    struct recording_header header = {k->seed, k->per_form, k->forms->len};
    if (k->record)
        w->recording = recording_create(k->record, &header, error);
    else if (k->replay)
        w->recording = recording_open(k->replay, &header, error);
    else
        return true;
    return w->recording != NULL;
}

static bool start(struct worker *w, GError **error)
{
    // First the host's fixed addresses: the translator takes what is left.
    if (!start_host(w, error) || !start_recording(w, error) || !(w->guest = guest_new(w->work->engine, error)))
        return false;
    struct random pattern = {42};
    for (unsigned k = 0; k < DATA_ALL; k++)
        w->pattern[k] = (uint8_t)random_next(&pattern);
    memcpy(w->expected_data, w->pattern, DATA_ALL);
    memcpy(guest_data(w->guest), w->pattern, DATA_ALL);
#ifdef __x86_64__
    if (!w->work->replay && strcmp(w->work->engine, "interpret") != 0)
        native_share_process();
    if (!w->work->replay)
        native_seal();
#endif
    return true;
}

int worker_run(const struct work *work)
{
    g_autoptr(GError) error = NULL;
    struct worker *w = g_new0(struct worker, 1);
    w->work = work;
    if (!start(w, &error)) {
        fprintf(stderr, "test-conformance: %s\n", error->message);
        return 2;
    }
    for (unsigned k = work->index; k < work->forms->len; k += work->workers) {
        struct form *f = work->forms->pdata[k];
        struct random r = {work->seed * 1000003 + k};
        atomic_store(&work->tally->form[work->index], k + 1);
        if (!f->excluded && !run_form(w, f, &r)) {
            fprintf(stderr, "test-conformance: the recording does not go with this program: record it again.\n");
            return 2;
        }
    }
    atomic_store(&work->tally->form[work->index], 0);
    fflush(stdout);
    guest_free(w->guest);
    return !w->recording || recording_close(w->recording) ? 0 : 2;
}
