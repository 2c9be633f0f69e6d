// SPDX-License-Identifier: GPL-2.0-or-later
// Pages whose code is rewritten all the time, or that hold data beside code. Watching them costs more than it gives:
// each write takes the slow path, and kills blocks that are soon made again. So nobody watches them; instead each of
// their blocks compares its guest bytes with those that it was translated from when it is entered, and ends behind
// every write, which may have changed what comes next (SDM vol. 3, 12.6). After a second the page is watched again.
#include "core/cpu/translate/translate.h"

#define HIT_WEIGHT 16    // of a write that killed blocks, in writes to the page
#define WRITES_MAX 64    // weighted, within
#define WINDOW     20000 // microseconds
#define REST       G_USEC_PER_SEC

bool page_rewritten(struct translator *t, uint64_t ram_page)
{
    const struct code_page *page = t->rewritten ? code_page_get(t, ram_page, false) : NULL;
    return page && page->rewritten;
}

// Other processors may be inside a block that dies. Their next write to its page goes the slow way, as the page was
// watched, and finds that they are to leave behind that instruction: the one that follows may be what they wrote.
static void others_leave(struct translator *t)
{
    const struct vcpu *current = vcpu_current();
    for (unsigned n = 0; n < t->set->count; n++) {
        struct context *c = t->set->vcpu[n] == current ? NULL : t->set->vcpu[n]->engine_state;
        if (c)
            atomic_store(&c->kicked, 1);
    }
}

unsigned page_forget(struct translator *t, struct code_page *page)
{
    unsigned killed = 0;
    if (page->first_block || page->first_tail)
        others_leave(t);
    for (uint32_t i = page->first_block; i; i = t->blocks[i - 1].page_next, killed++)
        block_kill(t, &t->blocks[i - 1]);
    for (uint32_t i = page->first_tail; i; i = t->blocks[i - 1].second_next, killed++)
        block_kill(t, &t->blocks[i - 1]);
    page->first_block = page->first_tail = 0;
    for (unsigned n = 0; n < G_N_ELEMENTS(page->bitmap); n++)
        page->bitmap[n] = 0;
    return killed;
}

bool page_written(struct translator *t, struct code_page *page, bool hit)
{
    int64_t now = g_get_monotonic_time();
    if (page->rewritten)
        return false;
    if (now - page->since > WINDOW) {
        page->since = now;
        page->writes = 0;
    }
    page->writes += hit ? HIT_WEIGHT : 1;
    if (page->writes < WRITES_MAX)
        return false;
    page->since = now;
    page->rewritten = true;
    page->next_rewritten = t->rewritten;
    t->rewritten = page;
    page_forget(t, page);
    return true;
}

void block_stale(struct translator *t, uint32_t index)
{
    struct block *b = &t->blocks[index];
    struct code_page *page = code_page_get(t, b->ram_page, false);
    uint32_t *link = page ? &page->first_checking : NULL;
    while (link && *link && *link != index + 1)
        link = &t->blocks[*link - 1].page_next;
    if (link && *link)
        *link = b->page_next;
    block_kill(t, b);
}

void rewritten_forget(struct translator *t)
{
    t->rewritten = NULL;
}

void rewritten_rest(struct translator *t)
{
    int64_t now = g_get_monotonic_time();
    g_mutex_lock(&t->lock);
    for (struct code_page **link = &t->rewritten, *page; (page = *link);) {
        if (now - page->since < REST) {
            link = &page->next_rewritten;
            continue;
        }
        *link = page->next_rewritten;
        page->rewritten = false;
        page->since = page->writes = 0;
        for (uint32_t i = page->first_checking; i; i = t->blocks[i - 1].page_next)
            block_kill(t, &t->blocks[i - 1]);
        page->first_checking = 0;
    }
    g_mutex_unlock(&t->lock);
}
