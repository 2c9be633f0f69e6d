// SPDX-License-Identifier: GPL-2.0-or-later
// The protocol side: libvncserver on the "vnc" thread. All its functions and structures are touched by that thread
// only. The picture that clients see is a copy of the surface, brought up to date by its damage, so that libvncserver
// may draw a cursor into it for viewers that cannot, and a change of mode is safe.
#include "ui/vnc/session.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <poll.h>
#include <rfb/rfb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define FRAME_US         16000  // between updates: a little more than 60 a second
#define LOOK_US          4000   // between looks at a screen that changed or whose user typed lately
#define LIVELY_US        500000 // how long that is
#define QUIET_US         3000000
#define QUIET_LOOK_US    40000
#define BACKLOG_LIMIT    (64 * KiB) // a client for which more waits gets no new update
#define MESSAGES_AT_ONCE 64
#define CLIENTS_DEFAULT  16
#define WISHES_MAX       1000 // sizes that one connection may ask for: the library (0.9.14) loses memory on each

#define ENCODING_QEMU_KEY (-258)
#define ENCODING_QEMU_LED (-261)

void vnc_server_wake(struct vnc_server *server)
{
    uint64_t one = 1;
    if (write(server->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_warning("vnc", "cannot wake the server's thread: %s", g_strerror(errno));
}

// ---- Surface callbacks: note and wake ----
static void on_resized(void *opaque, struct surface *surface, struct pixels *pixels)
{
    struct vnc_server *server = opaque;
    server->resized = true;
    vnc_server_wake(server);
}

static void on_damaged(void *opaque, struct surface *surface, const struct rectangle *rectangle)
{
    struct vnc_server *server = opaque;
    if (!atomic_exchange(&server->damaged, true))
        vnc_server_wake(server);
}

static void on_cursor_changed(void *opaque, struct surface *surface, struct cursor *cursor)
{
    struct vnc_server *server = opaque;
    server->cursor_changed = true;
    vnc_server_wake(server);
}

static void on_cursor_moved(void *opaque, struct surface *surface, int x, int y)
{
    struct vnc_server *server = opaque;
    if (!atomic_exchange(&server->cursor_moved, true))
        vnc_server_wake(server);
}

static const struct surface_listener_ops listener_ops = {on_resized, on_damaged, on_cursor_changed, on_cursor_moved,
                                                         .pulls = true};

static void on_leds(void *opaque, unsigned leds)
{
    struct vnc_server *server = opaque;
    server->leds_changed = true;
    vnc_server_wake(server);
}

// ---- Input from clients ----
static void note_input(struct vnc_server *server)
{
    server->lively_until = g_get_monotonic_time() + LIVELY_US;
    server->next_look = MIN(server->next_look, g_get_monotonic_time() + LOOK_US / 2);
    screen_expect_change(server->screen);
}

static void press(struct session *session, unsigned code, bool down)
{
    if (code == 0 || code >= KEY_CNT)
        return;
    session->keys[code] = down;
    input_key(session->server->input, code, down);
    input_sync(session->server->input);
    note_input(session->server);
}

// With Ctrl, Alt or Super it is a shortcut, not a character.
static bool is_shortcut(const struct session *session)
{
    static const uint16_t held[] = {KEY_LEFTCTRL, KEY_RIGHTCTRL, KEY_LEFTALT, KEY_LEFTMETA, KEY_RIGHTMETA};
    for (unsigned i = 0; i < G_N_ELEMENTS(held); i++)
        if (session->keys[held[i]])
            return true;
    return false;
}

// A viewer that sends symbols may leave out the modifier that makes one: it is held for the key's press.
static void on_keysym(rfbBool down, rfbKeySym keysym, rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    const struct stroke stroke = input_keysym(session->server->input, keysym);
    bool adds = down && !is_shortcut(session);
    bool shift = adds && stroke.shift && !session->keys[KEY_LEFTSHIFT] && !session->keys[KEY_RIGHTSHIFT];
    bool altgr = adds && stroke.altgr && !session->keys[KEY_RIGHTALT];
    press(session, shift ? KEY_LEFTSHIFT : 0, true);
    press(session, altgr ? KEY_RIGHTALT : 0, true);
    press(session, stroke.evdev, down);
    press(session, altgr ? KEY_RIGHTALT : 0, false);
    press(session, shift ? KEY_LEFTSHIFT : 0, false);
}

static void release_keys(struct session *session)
{
    for (unsigned code = 0; code < KEY_CNT; code++)
        if (session->keys[code])
            press(session, code, false);
}

static void on_release_all(rfbClientPtr cl)
{
    release_keys(cl->clientData);
}

// By bit of the protocol's button mask.
static const enum input_button buttons[] = {INPUT_LEFT,       INPUT_MIDDLE,     INPUT_RIGHT,       INPUT_WHEEL_UP,
                                            INPUT_WHEEL_DOWN, INPUT_WHEEL_LEFT, INPUT_WHEEL_RIGHT, INPUT_SIDE};

static void on_pointer(int mask, int x, int y, rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    struct vnc_server *server = session->server;
    input_pointer_absolute(server->input, MAX(x, 0), MAX(y, 0), server->rfb->width, server->rfb->height);
    for (unsigned i = 0; i < G_N_ELEMENTS(buttons); i++)
        if ((mask ^ session->buttons) & 1 << i)
            input_button(server->input, buttons[i], mask & 1 << i);
    session->buttons = mask;
    input_sync(server->input);
    note_input(server);
}

// ---- Clipboard ----
static void got_clipboard(rfbClientPtr cl, char *text)
{
    struct session *session = cl->clientData;
    if (text && session->server->clipboard)
        session->server->clipboard(session->server->opaque, text);
    g_free(text);
}

static void on_cut_text(char *text, int length, rfbClientPtr cl)
{
    got_clipboard(cl, g_convert(text, MAX(length, 0), "UTF-8", "ISO-8859-1", NULL, NULL, NULL));
}

static void on_cut_text_utf8(char *text, int length, rfbClientPtr cl)
{
    got_clipboard(cl, g_utf8_make_valid(text, strnlen(text, MAX(length, 0))));
}

static void send_cut_text(rfbClientPtr cl, const char *latin1)
{
    size_t length = strlen(latin1);
    uint8_t head[8] = {rfbServerCutText, 0, 0, 0, length >> 24, length >> 16, length >> 8, length};
    if (rfbWriteExact(cl, (char *)head, 8) < 0 || rfbWriteExact(cl, latin1, length) < 0)
        rfbCloseClient(cl);
}

// Some of the library's ways out (0.9.14) forget a lock, and the next call would wait for it for ever. Nobody but this
// thread takes these locks: what is locked now is forgotten.
static void open_locks(rfbClientPtr cl)
{
    pthread_mutex_t *const locks[] = {&cl->updateMutex, &cl->sendMutex, &cl->outputMutex};
    for (unsigned i = 0; i < G_N_ELEMENTS(locks); i++) {
        if (pthread_mutex_trylock(locks[i]) != 0)
            log_debug("vnc", "the library forgot lock %u", i);
        pthread_mutex_unlock(locks[i]);
    }
}

// Clients with the extended clipboard get it as UTF-8, from the library; the others as Latin-1, from us: the library
// (0.9.14) writes them as many bytes as the UTF-8 has, whatever it told them.
static void send_clipboard(struct vnc_server *server, char *text)
{
    g_autofree char *latin1 = g_convert_with_fallback(text, -1, "ISO-8859-1", "UTF-8", "?", NULL, NULL, NULL);
    bool extended = false;
    for (rfbClientPtr cl = server->rfb->clientHead; cl; cl = cl->next)
        extended |= cl->enableExtendedClipboard;
    if (extended)
        rfbSendServerCutTextUTF8(server->rfb, text, strlen(text), NULL, 0);
    for (rfbClientPtr cl = server->rfb->clientHead; cl; cl = cl->next)
        open_locks(cl);
    for (rfbClientPtr cl = server->rfb->clientHead; cl && latin1; cl = cl->next)
        if (cl->sock >= 0 && cl->state == RFB_NORMAL && !cl->enableExtendedClipboard)
            send_cut_text(cl, latin1);
    g_free(text);
}

void vnc_server_set_clipboard(struct vnc_server *server, const char *text)
{
    g_mutex_lock(&server->lock);
    g_free(server->new_clipboard);
    server->new_clipboard = g_utf8_make_valid(text, MIN(strlen(text), MiB));
    g_mutex_unlock(&server->lock);
    vnc_server_wake(server);
}

// ---- QEMU's extended key event and LED state (the RFB protocol, community version) ----
static rfbBool extension_new_client(rfbClientPtr cl, void **data)
{
    return TRUE;
}

static rfbBool extension_encoding(rfbClientPtr cl, void **data, int encoding)
{
    struct session *session = cl->clientData;
    if (!session)
        return FALSE;
    if (encoding == ENCODING_QEMU_KEY)
        session->key_extension = true;
    else if (encoding == ENCODING_QEMU_LED)
        session->led_extension = true;
    return encoding == ENCODING_QEMU_KEY || encoding == ENCODING_QEMU_LED;
}

static rfbBool extension_message(rfbClientPtr cl, void *data, const rfbClientToServerMsg *message)
{
    struct session *session = cl->clientData;
    uint8_t rest[11]; // submessage type, down (2), keysym (4), key code (4)
    if (message->type != 255 || !session)
        return FALSE;
    if (rfbReadExact(cl, (char *)rest, sizeof(rest)) <= 0) {
        rfbCloseClient(cl);
        return TRUE;
    }
    const struct key *key = key_by_set1(rest[9] << 8 | rest[10]);
    if (!cl->viewOnly && rest[0] == 0 && key)
        press(session, key->evdev, rest[1] | rest[2]);
    return TRUE;
}

static int extension_encodings[] = {ENCODING_QEMU_KEY, ENCODING_QEMU_LED, 0};
// libvncserver keeps it in a global list, so there is one for the process.
static rfbProtocolExtension extension = {
    .newClient = extension_new_client,
    .pseudoEncodings = extension_encodings,
    .enablePseudoEncoding = extension_encoding,
    .handleMessage = extension_message,
};

// An update of one empty rectangle of a pseudo-encoding, with LENGTH bytes of payload.
static void send_pseudo(rfbClientPtr cl, int encoding, unsigned width, unsigned height, const uint8_t *payload,
                        unsigned length)
{
    uint8_t message[20] = {rfbFramebufferUpdate,
                           0,
                           0,
                           1,
                           0,
                           0,
                           0,
                           0,
                           width >> 8,
                           width,
                           height >> 8,
                           height,
                           encoding >> 24,
                           encoding >> 16,
                           encoding >> 8,
                           encoding};
    if (length)
        memcpy(message + 16, payload, length);
    if (rfbWriteExact(cl, (char *)message, 16 + length) < 0)
        rfbCloseClient(cl);
}

static bool extension_pending(struct vnc_server *server, rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    return (session->key_extension && !session->key_extension_told) ||
           (session->led_extension && session->leds_told != input_leds(server->input));
}

static void send_extensions(struct vnc_server *server, rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    if (session->key_extension && !session->key_extension_told) {
        session->key_extension_told = true;
        send_pseudo(cl, ENCODING_QEMU_KEY, server->rfb->width, server->rfb->height, NULL, 0);
    }
    unsigned leds = input_leds(server->input);
    if (session->led_extension && session->leds_told != leds && cl->sock >= 0) {
        session->leds_told = leds;
        send_pseudo(cl, ENCODING_QEMU_LED, 1, 1, (uint8_t[]){leds}, 1);
    }
}

// ---- Sizes ----
static int on_set_size(int width, int height, int screens, struct rfbExtDesktopScreen *list, rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    if (cl->viewOnly || !surface_resizable(session->server->surface))
        return rfbExtDesktopSize_ResizeProhibited;
    if (++session->wishes > WISHES_MAX) {
        session->client->kill = true;
        return rfbExtDesktopSize_ResizeProhibited;
    }
    if (screens != 1 || width < 64 || height < 64 || width > SURFACE_MAX_WIDTH || height > SURFACE_MAX_HEIGHT)
        return rfbExtDesktopSize_InvalidScreenLayout;
    surface_wish_size(session->server->surface, width, height);
    note_input(session->server);
    return rfbExtDesktopSize_Success;
}

static int on_count_screens(rfbClientPtr cl)
{
    return 1;
}

static rfbBool on_get_screen(int number, struct rfbExtDesktopScreen *screen, rfbClientPtr cl)
{
    if (number != 0)
        return FALSE;
    *screen = (struct rfbExtDesktopScreen){.id = 1, .width = cl->screen->width, .height = cl->screen->height};
    return TRUE;
}

// ---- Cursors ----
static void take_cursor(struct vnc_server *server)
{
    int x, y;
    struct cursor *cursor = surface_cursor(server->surface, &x, &y);
    rfbCursorPtr shape = calloc(1, sizeof(*shape)); // freed by libvncserver with free()
    uint32_t width = cursor ? cursor->width : 1, height = cursor ? cursor->height : 1;
    shape->width = width;
    shape->height = height;
    shape->xhot = cursor ? cursor->hot_x : 0;
    shape->yhot = cursor ? cursor->hot_y : 0;
    size_t row = (width + 7) / 8;
    shape->mask = calloc(row, height);
    shape->richSource = calloc((size_t)width * height, 4);
    shape->alphaSource = calloc(width, height);
    shape->alphaPreMultiplied = TRUE;
    shape->cleanup = shape->cleanupMask = shape->cleanupRichSource = TRUE;
    for (uint32_t i = 0; cursor && i < width * height; i++) {
        uint32_t argb = cursor->argb[i];
        ((uint32_t *)(void *)shape->richSource)[i] = argb & 0xffffff;
        shape->alphaSource[i] = argb >> 24;
        if (argb >> 24 >= 0x80)
            shape->mask[i / width * row + i % width / 8] |= 0x80 >> i % width % 8;
    }
    if (cursor)
        cursor_unref(cursor);
    rfbSetCursor(server->rfb, shape);
}

// The guest moved its pointer: told to clients that do not move it themselves.
static void take_cursor_position(struct vnc_server *server)
{
    int x, y;
    struct cursor *cursor = surface_cursor(server->surface, &x, &y);
    if (cursor)
        cursor_unref(cursor);
    server->rfb->cursorX = CLAMP(x, 0, server->rfb->width - 1);
    server->rfb->cursorY = CLAMP(y, 0, server->rfb->height - 1);
    rfbClientIteratorPtr iterator = rfbGetClientIterator(server->rfb);
    for (rfbClientPtr cl; (cl = rfbClientIteratorNext(iterator));)
        cl->cursorWasMoved |= cl->enableCursorPosUpdates && !input_absolute(server->input);
    rfbReleaseClientIterator(iterator);
}

// ---- Clients ----
static void on_client_gone(rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    if (!session)
        return;
    release_keys(session);
    for (unsigned i = 0; i < G_N_ELEMENTS(buttons); i++)
        if (session->buttons & 1 << i)
            input_button(session->server->input, buttons[i], false);
    input_sync(session->server->input);
    // The library forgets to free these (0.9.14).
    for (rfbExtensionData *data = cl->extensions, *next; data; data = next) {
        next = data->next;
        free(data);
    }
    cl->extensions = NULL;
    cl->clientData = NULL;
    vnc_client_unref(session->client);
    g_free(session);
}

static enum rfbNewClientAction on_new_client(rfbClientPtr cl)
{
    cl->clientGoneHook = on_client_gone;
    return RFB_CLIENT_ACCEPT;
}

// Other pixels of the same size (a page flip) are nothing but damage.
static bool size_changed(struct vnc_server *server)
{
    struct pixels *pixels = surface_pixels(server->surface);
    bool changed = (int)pixels->width != server->rfb->width || (int)pixels->height != server->rfb->height;
    pixels_unref(pixels);
    return changed;
}

// Brings the copy up to date. True when there is something new.
static bool take_news(struct vnc_server *server)
{
    surface_refresh(server->surface);
    server->damaged = false;
    bool news = false;
    if (atomic_exchange(&server->resized, false) && size_changed(server)) {
        struct damage damage;
        surface_take_damage(server->listener, &damage);
        vnc_take_size(server);
        news = true;
    }
    if (atomic_exchange(&server->cursor_changed, false)) {
        take_cursor(server);
        news = true;
    }
    if (atomic_exchange(&server->cursor_moved, false)) {
        take_cursor_position(server);
        news = true;
    }
    news |= atomic_exchange(&server->leds_changed, false);
    return vnc_take_damage(server) || news;
}

static void attach_surface(struct vnc_server *server)
{
    if (server->listener)
        return;
    server->listener = surface_attach(server->surface, &listener_ops, server);
    server->resized = server->cursor_changed = true;
    take_news(server); // all of it is damage at first
}

static void adopt_clients(struct vnc_server *server)
{
    for (;;) {
        g_mutex_lock(&server->lock);
        struct vnc_client *client = g_queue_pop_head(&server->adopted);
        g_mutex_unlock(&server->lock);
        if (!client)
            break;
        attach_surface(server); // so that the client is greeted with the present size
        rfbClientPtr cl = rfbNewClient(server->rfb, client->library_fd);
        if (!cl) { // it has closed the socket
            vnc_client_unref(client);
            continue;
        }
        struct session *session = g_new0(struct session, 1);
        session->server = server;
        session->client = client;
        session->leds_told = ~0u;
        cl->clientData = session;
        server->lively_until = g_get_monotonic_time() + LIVELY_US;
    }
}

static bool readable(int fd)
{
    int bytes = 0;
    return fd >= 0 && ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

// The library (0.9.14) takes requests for areas without width or height as they are, and later divides by them.
static void drop_empty(sraRegionPtr region)
{
    sraRegionPtr whole = sraRgnCreate();
    sraRectangleIterator *iterator = sraRgnGetIterator(region);
    bool empty = false;
    for (sraRect r; sraRgnIteratorNext(iterator, &r);) {
        if (r.x1 >= r.x2 || r.y1 >= r.y2) {
            empty = true;
            continue;
        }
        sraRegionPtr part = sraRgnCreateRect(r.x1, r.y1, r.x2, r.y2);
        sraRgnOr(whole, part);
        sraRgnDestroy(part);
    }
    sraRgnReleaseIterator(iterator);
    if (empty) {
        sraRgnMakeEmpty(region);
        sraRgnOr(region, whole);
    }
    sraRgnDestroy(whole);
}

static void read_client(rfbClientPtr cl)
{
    unsigned count = 0;
    do {
        rfbProcessClientMessage(cl);
        open_locks(cl);
        drop_empty(cl->requestedRegion);
        drop_empty(cl->modifiedRegion);
    } while (cl->sock >= 0 && ++count < MESSAGES_AT_ONCE && readable(cl->sock));
}

// Has asked for an update and has room for it.
static bool wants_update(rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    return session && cl->sock >= 0 && cl->state == RFB_NORMAL && !sraRgnEmpty(cl->requestedRegion) &&
           session->client->backlog < BACKLOG_LIMIT;
}

static bool held_back(rfbClientPtr cl)
{
    struct session *session = cl->clientData;
    return session && session->client->backlog >= BACKLOG_LIMIT;
}

struct demand {
    unsigned clients;
    bool wanted, pending, held; // an update is wanted; there is something for it; one waits for its client's buffer
};

static struct demand look_at_clients(struct vnc_server *server, struct pollfd *fds, unsigned max, unsigned *count)
{
    struct demand demand = {0};
    for (rfbClientPtr cl = server->rfb->clientHead, next; cl; cl = next) {
        next = cl->next;
        if (cl->sock < 0) {
            rfbClientConnectionGone(cl);
            continue;
        }
        demand.clients++;
        bool wants = wants_update(cl);
        demand.wanted |= wants;
        demand.pending |= wants && (FB_UPDATE_PENDING(cl) || extension_pending(server, cl) ||
                                    vnc_is_stale(server, cl->requestedRegion));
        demand.held |= held_back(cl);
        if (*count < max)
            fds[(*count)++] = (struct pollfd){cl->sock, POLLIN, 0};
    }
    return demand;
}

static void read_clients(struct vnc_server *server)
{
    for (rfbClientPtr cl = server->rfb->clientHead; cl; cl = cl->next) {
        struct pollfd fd = {cl->sock, POLLIN, 0};
        if (cl->sock >= 0 && poll(&fd, 1, 0) > 0)
            read_client(cl);
    }
}

// True when anything was sent.
static bool update_clients(struct vnc_server *server)
{
    bool sent = false;
    rfbClientIteratorPtr iterator = rfbGetClientIterator(server->rfb);
    for (rfbClientPtr cl; (cl = rfbClientIteratorNext(iterator));) {
        if (!wants_update(cl))
            continue;
        if (!vnc_freshen(server, cl->requestedRegion))
            continue;
        send_extensions(server, cl);
        bool new_size = cl->newFBSizePending;
        if (cl->sock >= 0)
            sent |= rfbUpdateClient(cl);
        open_locks(cl);
        if (new_size && !cl->newFBSizePending) // what it had asked for was of the old size
            sraRgnMakeEmpty(cl->requestedRegion);
    }
    rfbReleaseClientIterator(iterator);
    return sent;
}

static void show(struct vnc_server *server, int64_t now)
{
    bool news = take_news(server);
    if (news) {
        server->changed_at = now;
        server->lively_until = MAX(server->lively_until, now + LIVELY_US);
    }
    if (update_clients(server))
        server->next_frame = MAX(server->next_frame + FRAME_US, now + FRAME_US / 4);
    int64_t wait = now < server->lively_until            ? LOOK_US
                   : now < server->changed_at + QUIET_US ? FRAME_US
                                                         : QUIET_LOOK_US;
    server->next_look = now + wait;
}

// ---- The thread ----
static void take_commands(struct vnc_server *server)
{
    uint64_t drained;
    if (read(server->wake, &drained, sizeof(drained)) < 0 && errno != EAGAIN)
        log_warning("vnc", "cannot read the wake-up event: %s", g_strerror(errno));
    g_mutex_lock(&server->lock);
    char *text = g_steal_pointer(&server->new_clipboard);
    if (server->passwords_changed)
        server->rfb->authPasswdData = server->passwords.full[0] || server->passwords.view[0] ? server : NULL;
    server->passwords_changed = false;
    g_mutex_unlock(&server->lock);
    if (text)
        send_clipboard(server, text);
}

// How long to sleep: until the next frame may be sent to somebody who wants one.
static int sleep_ms(struct vnc_server *server, const struct demand *demand, int64_t now)
{
    if (demand->wanted) {
        // What comes with a notification needs no looking.
        int64_t due = surface_polled(server->surface) ? server->next_look : now + G_USEC_PER_SEC;
        if (demand->pending || server->damaged || server->resized || server->cursor_changed || server->cursor_moved ||
            server->leds_changed)
            due = now;
        due = MAX(due, server->next_frame);
        return MAX(0, (due - now + 999) / 1000);
    }
    return demand->held ? 5 : 1000;
}

static void *server_thread(void *opaque)
{
    struct vnc_server *server = opaque;
    struct pollfd fds[1 + 256];
    while (!server->quit) {
        take_commands(server);
        adopt_clients(server);
        unsigned count = 1;
        fds[0] = (struct pollfd){server->wake, POLLIN, 0};
        struct demand demand = look_at_clients(server, fds, G_N_ELEMENTS(fds), &count);
        if (!demand.clients && server->listener) {
            surface_detach(g_steal_pointer(&server->listener));
            continue;
        }
        int64_t now = g_get_monotonic_time();
        int timeout = sleep_ms(server, &demand, now);
        if (timeout == 0) {
            show(server, now);
            read_clients(server);
            continue;
        }
        if (poll(fds, count, timeout) > 0)
            read_clients(server);
    }
    return NULL;
}

static void adopt(void *opaque, struct vnc_client *client)
{
    struct vnc_server *server = opaque;
    g_mutex_lock(&server->lock);
    g_queue_push_tail(&server->adopted, client);
    g_mutex_unlock(&server->lock);
    vnc_server_wake(server);
}

// ---- Life ----
G_GNUC_PRINTF(1, 2) static void library_log(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strchomp(g_strdup_vprintf(format, args));
    va_end(args);
    log_debug("vnc", "%s", text);
}

static void register_once(void)
{
    static gsize done;
    if (!g_once_init_enter(&done))
        return;
    rfbLog = rfbErr = library_log;
    rfbRegisterProtocolExtension(&extension);
    g_once_init_leave(&done, 1);
}

static rfbScreenInfoPtr make_rfb(struct vnc_server *server, bool exclusive)
{
    register_once();
    struct pixels *pixels = surface_pixels(server->surface);
    rfbScreenInfoPtr rfb = rfbGetScreen(NULL, NULL, pixels->width, pixels->height, 8, 3, 4);
    server->picture = g_malloc0((size_t)pixels->width * pixels->height * 4);
    pixels_unref(pixels);
    rfb->frameBuffer = (char *)server->picture;
    vnc_set_format(rfb);
    rfb->screenData = server;
    rfb->desktopName = server->name;
    rfb->autoPort = FALSE;
    rfb->port = rfb->ipv6port = 0;
    rfb->httpDir = NULL;
    rfb->deferUpdateTime = rfb->deferPtrUpdateTime = 0;
    rfb->alwaysShared = !exclusive;
    rfb->neverShared = exclusive;
    rfb->permitFileTransfer = FALSE;
    rfb->passwordCheck = vnc_check_password;
    rfb->kbdAddEvent = on_keysym;
    rfb->kbdReleaseAllKeys = on_release_all;
    rfb->ptrAddEvent = on_pointer;
    rfb->setXCutText = on_cut_text;
    rfb->setXCutTextUTF8 = on_cut_text_utf8;
    rfb->newClientHook = on_new_client;
    rfb->setDesktopSizeHook = on_set_size;
    rfb->numberOfExtDesktopScreensHook = on_count_screens;
    rfb->getExtDesktopScreenHook = on_get_screen;
    rfbInitServer(rfb);
    return rfb;
}

struct settings {
    char *where;
    unsigned clients, head;
    bool exclusive;
};

static bool bad_option(const char *option, GError **error)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "The VNC option \"%s\" is not known: use clients=N, head=N or exclusive", option);
    return false;
}

static bool parse_settings(const char *text, struct settings *settings, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    settings->where = g_strdup(parts[0] ? parts[0] : "");
    settings->clients = CLIENTS_DEFAULT;
    for (char **part = parts + 1; *parts && *part; part++) {
        guint64 number;
        const char *equals = strchr(*part, '=');
        bool valued = equals && g_ascii_string_to_unsigned(equals + 1, 10, 0, 200, &number, NULL);
        if (strcmp(*part, "exclusive") == 0)
            settings->exclusive = true;
        else if (valued && g_str_has_prefix(*part, "clients=") && number > 0)
            settings->clients = number;
        else if (valued && g_str_has_prefix(*part, "head="))
            settings->head = number;
        else
            return bad_option(*part, error);
    }
    return true;
}

static bool open_server(struct vnc_server *server, const struct vnc_options *options, struct settings *settings,
                        GError **error)
{
    if (!parse_settings(options->where, settings, error))
        return false;
    server->surface = screen_head(server->screen, settings->head);
    if (!server->surface) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "The machine has no head %u to show by VNC: give it a display adapter", settings->head);
        return false;
    }
    server->net = vnc_net_new(settings->where, settings->clients, error);
    if (!server->net)
        return false;
    if (options->password_file)
        return vnc_server_load_passwords(server, options->password_file, error);
    return vnc_server_set_passwords(server, NULL, NULL, error);
}

struct vnc_server *vnc_server_new(struct screen *screen, struct input *input, const struct vnc_options *options,
                                  GError **error)
{
    struct vnc_server *server = g_new0(struct vnc_server, 1);
    struct settings settings = {0};
    server->screen = screen;
    server->input = input;
    server->name = g_strdup(options->name ? options->name : "Cloche");
    server->clipboard = options->clipboard;
    server->opaque = options->opaque;
    server->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->stale = sraRgnCreate();
    g_mutex_init(&server->lock);
    g_queue_init(&server->adopted);
    bool good = open_server(server, options, &settings, error);
    g_free(settings.where);
    if (!good) {
        vnc_server_free(server);
        return NULL;
    }
    server->rfb = make_rfb(server, settings.exclusive);
    input_add_leds_listener(input, on_leds, server);
    server->thread = g_thread_new("vnc", server_thread, server);
    vnc_net_start(server->net, adopt, server);
    log_info("vnc", "listening at %s", vnc_net_address(server->net));
    return server;
}

void vnc_server_free(struct vnc_server *server)
{
    if (!server)
        return;
    if (server->thread) {
        input_remove_leds_listener(server->input, on_leds, server);
        server->quit = true;
        vnc_server_wake(server);
        g_thread_join(server->thread);
    }
    vnc_net_free(server->net);
    if (server->rfb) {
        for (rfbClientPtr cl; (cl = server->rfb->clientHead);) {
            if (cl->sock >= 0)
                rfbCloseClient(cl);
            rfbClientConnectionGone(cl);
        }
        rfbScreenCleanup(server->rfb);
    }
    surface_detach(server->listener);
    for (struct vnc_client *client; (client = g_queue_pop_head(&server->adopted));) {
        close(client->library_fd);
        vnc_client_unref(client);
    }
    close(server->wake);
    sraRgnDestroy(server->stale);
    memset(&server->passwords, 0, sizeof(server->passwords));
    g_mutex_clear(&server->lock);
    g_free(server->new_clipboard);
    g_free(server->picture);
    g_free(server->name);
    g_free(server);
}

// ---- Queries and commands from other threads ----
char *vnc_server_address(struct vnc_server *server)
{
    return g_strdup(vnc_net_address(server->net));
}

static void clear_info(void *info)
{
    g_free(((struct vnc_client_info *)info)->peer);
}

GArray *vnc_server_clients(struct vnc_server *server)
{
    GArray *list = g_array_new(FALSE, FALSE, sizeof(struct vnc_client_info));
    g_array_set_clear_func(list, clear_info);
    g_autoptr(GPtrArray) clients = vnc_net_clients(server->net);
    for (unsigned i = 0; i < clients->len; i++) {
        struct vnc_client *client = clients->pdata[i];
        struct vnc_client_info info = {.id = client->id,
                                       .peer = g_strdup(client->peer),
                                       .shared = client->shared,
                                       .view_only = client->view_only,
                                       .established = client->established,
                                       .sent = client->sent};
        g_array_append_val(list, info);
    }
    return list;
}

bool vnc_server_disconnect(struct vnc_server *server, unsigned id)
{
    bool found = id == 0;
    g_autoptr(GPtrArray) clients = vnc_net_clients(server->net);
    for (unsigned i = 0; i < clients->len; i++) {
        struct vnc_client *client = clients->pdata[i];
        if (id && client->id != id)
            continue;
        client->kill = true;
        found = true;
    }
    vnc_net_wake(server->net);
    return found;
}
