// SPDX-License-Identifier: GPL-2.0-or-later
// The picture that VNC clients see: a copy of the surface, brought up to date where a client asks for it, tile by tile,
// so that only what differs is sent however much damage was reported.
#include "ui/vnc/session.h"

#include <string.h>

#define TILE_WIDTH  32
#define TILE_HEIGHT 16

void vnc_set_format(rfbScreenInfoPtr rfb)
{
    rfb->serverFormat.redShift = 16;
    rfb->serverFormat.greenShift = 8;
    rfb->serverFormat.blueShift = 0;
    rfb->serverFormat.depth = 24;
}

static void make_stale(struct vnc_server *server, const struct rectangle *r)
{
    int right = MIN(r->x + r->width, server->rfb->width), bottom = MIN(r->y + r->height, server->rfb->height);
    if (r->x >= right || r->y >= bottom)
        return; // of a size that is about to be taken over
    sraRegionPtr part = sraRgnCreateRect(r->x, r->y, right, bottom);
    sraRgnOr(server->stale, part);
    sraRgnDestroy(part);
}

// Everybody gets the new size; who cannot be told it is disconnected, rather than sent what it has no room for.
void vnc_take_size(struct vnc_server *server)
{
    struct pixels *pixels = surface_pixels(server->surface);
    int width = pixels->width, height = pixels->height;
    uint8_t *old = server->picture;
    server->picture = g_malloc0((size_t)width * height * 4);
    pixels_unref(pixels);
    bool changed = width != server->rfb->width || height != server->rfb->height;
    rfbNewFramebuffer(server->rfb, (char *)server->picture, width, height, 8, 3, 4);
    vnc_set_format(server->rfb);
    sraRgnMakeEmpty(server->stale);
    make_stale(server, &(struct rectangle){0, 0, width, height});
    rfbClientIteratorPtr iterator = rfbGetClientIterator(server->rfb);
    for (rfbClientPtr cl; (cl = rfbClientIteratorNext(iterator));) {
        cl->screen->setTranslateFunction(cl);
        if (changed && !cl->useNewFBSize && cl->state == RFB_NORMAL) {
            log_info("vnc", "client %u cannot follow the change to %d x %d",
                     ((struct session *)cl->clientData)->client->id, width, height);
            rfbCloseClient(cl);
        }
    }
    rfbReleaseClientIterator(iterator);
    g_free(old);
}

// Takes over the tiles' rows Y0 to Y1 (one row of tiles at most) between X0 and X1, and marks what differs. The
// surface's memory is read once; libvncserver's encoders count on an unused byte of zero, which guests' own memory does
// not promise.
static void take_tiles(struct vnc_server *server, const struct pixels *pixels, int x0, int y0, int x1, int y1)
{
    bool changed[SURFACE_MAX_WIDTH / TILE_WIDTH + 1] = {false};
    for (int y = y0; y < y1; y++) {
        uint32_t *to = (uint32_t *)(void *)(server->picture + (size_t)y * server->rfb->width * 4);
        const uint32_t *from = (const uint32_t *)(const void *)(pixels->data + (size_t)y * pixels->stride);
        for (int x = x0, next; x < x1; x = next) {
            next = MIN((x / TILE_WIDTH + 1) * TILE_WIDTH, x1);
            changed[x / TILE_WIDTH] |= pixels_merge(to + x, from + x, next - x);
        }
    }
    for (int x = x0, begin = -1; x <= x1; x = MIN((x / TILE_WIDTH + 1) * TILE_WIDTH, x1)) {
        bool differs = x < x1 && changed[x / TILE_WIDTH];
        if (differs && begin < 0)
            begin = x;
        if (!differs && begin >= 0) {
            rfbMarkRectAsModified(server->rfb, begin, y0, x, y1);
            begin = -1;
        }
        if (x == x1)
            break;
    }
}

// Brings what is stale of REGION up to date. Nothing is copied that no client asks for. False: the surface has another
// size by now, which is to be taken over first.
bool vnc_freshen(struct vnc_server *server, sraRegionPtr region)
{
    struct pixels *pixels = surface_pixels(server->surface);
    sraRegionPtr part = sraRgnCreateRgn(region);
    bool fits = (int)pixels->width == server->rfb->width && (int)pixels->height == server->rfb->height;
    if (!fits)
        server->resized = true;
    else if (sraRgnAnd(part, server->stale)) {
        sraRectangleIterator *iterator = sraRgnGetIterator(part);
        for (sraRect r; sraRgnIteratorNext(iterator, &r);)
            for (int y = r.y1, next; y < r.y2; y = next) {
                next = MIN((y / TILE_HEIGHT + 1) * TILE_HEIGHT, r.y2);
                take_tiles(server, pixels, r.x1, y, r.x2, next);
            }
        sraRgnReleaseIterator(iterator);
        sraRgnSubtract(server->stale, part);
    }
    sraRgnDestroy(part);
    pixels_unref(pixels);
    return fits;
}

bool vnc_is_stale(struct vnc_server *server, sraRegionPtr region)
{
    sraRegionPtr part = sraRgnCreateRgn(region);
    bool any = sraRgnAnd(part, server->stale);
    sraRgnDestroy(part);
    return any;
}

bool vnc_take_damage(struct vnc_server *server)
{
    struct damage damage;
    surface_take_damage(server->listener, &damage);
    for (unsigned i = 0; i < damage.count; i++)
        make_stale(server, &damage.rectangles[i]);
    return damage.count > 0;
}
