// SPDX-License-Identifier: GPL-2.0-or-later
// A network card's other side: the back end that its frames go to, the cable (link, bandwidth, delay, loss), and the
// capture file. Between a card that shows it to the guest and the people and programs who pull the cable or add
// forwards.
#ifndef CLOCHE_NIC_H
#define CLOCHE_NIC_H

#include "core/machine/machine.h"
#include <poll.h>
#include <sys/uio.h>

#define NIC_FRAME_MAX  65550u // Ethernet header and the largest IP packet
#define NIC_FRAME_MIN  60u    // without its checksum
#define NIC_FRAME_WIRE 1514u  // of an ordinary Ethernet
#define NIC_HEADER     14u

struct nic;

// The card's side. RECEIVE is called on the network's thread, the main loop's, or, while the card sends, from inside
// nic_send(); with the machine lock held unless LOCKLESS.
struct nic_client {
    bool lockless;
    // A frame without its checksum. False: there is no room now; it is tried again after nic_resume().
    bool (*receive)(void *opaque, const uint8_t *frame, size_t length);
    void (*link_changed)(void *opaque, bool up); // machine lock held
    // May be NULL: never. Whether the driver takes TCP frames of up to NIC_FRAME_MAX bytes now. Any thread.
    bool (*takes_large)(void *opaque);
};

// Where frames go to. Everything but OPEN runs under the back end's lock, on the network's thread or a vCPU's.
struct nic_backend {
    const char *name; // "user", "team", "tap", "none"
    bool takes_large; // frames of NIC_FRAME_MAX bytes with TCP segments longer than the wire's
    bool whole;       // frames come over no real wire: their checksums are right
    // ARGUMENT: what follows "NAME:", or "". Sets nic->backend_state.
    bool (*open)(struct nic *nic, const char *argument, GError **error);
    void (*close)(struct nic *nic);
    void (*send)(struct nic *nic, const uint8_t *frame, size_t length);
    // Appends struct pollfd entries and lowers *TIMEOUT (milliseconds); DISPATCH gets them back after poll(), or NULL
    // where they are out of date and only time has passed.
    void (*prepare)(struct nic *nic, GArray *descriptors, int *timeout);
    void (*dispatch)(struct nic *nic, GArray *descriptors, unsigned first);
    bool (*add_forward)(struct nic *nic, const char *forward, GError **error);    // may be NULL
    bool (*remove_forward)(struct nic *nic, const char *forward, GError **error); // may be NULL
};
extern const struct nic_backend *const nic_backends[]; // NULL-terminated; devices/net/backends.c

struct nic_frame {
    struct nic_frame *next;
    int64_t due; // guest nanoseconds
    uint32_t length;
    uint8_t data[];
};

struct nic_queue {
    struct nic_frame *first, **last;
    unsigned frames;
    uint64_t bytes;
    int64_t line_free; // when the frame before has left the line
    uint64_t random;   // state of the generator for loss and jitter
};

// The cable, in both directions.
struct nic_shape {
    uint64_t rate;          // bits per second, 0: no limit
    uint64_t delay, jitter; // nanoseconds
    uint32_t loss;          // per million
};

// What the guest called itself last; all zero: not heard yet.
struct nic_addresses {
    uint8_t ipv4[4], ipv6[16];
};

// Threads: the queues, the shape, the addresses and the capture under LOCK; the back end under BACKEND_LOCK (taken
// before LOCK), with POLLED (written by the thread alone), WANTED, POLL_END, STALE and GATHERED; DELIVER_LOCK is held
// while the card receives, after the machine lock where that is taken.
struct nic {
    struct nic *next;
    struct machine *machine;
    char *id;
    uint8_t mac[6];
    const struct nic_backend *backend;
    void *backend_state;
    GPtrArray *forwards;  // char *
    GHashTable *settings; // back end's own: key, value
    const struct nic_client *client;
    void *client_opaque;

    GMutex lock, backend_lock, deliver_lock;
    struct nic_queue to_guest, to_network;
    struct nic_shape shape;
    struct nic_capture *capture;
    char *capture_file; // NULL: no capture
    struct nic_addresses addresses;
    bool link;
    bool running; // the machine is: frames may change its memory
    bool stalled; // the card had no room
    _Atomic bool awake, quit, deferred;
    _Atomic bool unsettled;  // frames went straight to the back end: what it waits for may have changed
    GArray *polled, *wanted; // struct pollfd; of the network's thread, and for comparison with it
    int64_t poll_end;        // monotonic microseconds when the thread wakes by itself
    bool stale;              // what the thread polls is out of date
    uint8_t *gathered;       // a frame in one piece
    int wake;                // eventfd
    GThread *thread;
    uint64_t sent, sent_bytes, received, received_bytes, dropped;
};

// BACKEND: user, team:NAME, tap:NAME, none. MAC NULL: derived from ID. FORWARDS: separated by spaces, or NULL.
// SETTINGS: "key=value,..." or NULL: rate (bits per second, K M G), delay and jitter (milliseconds), loss (percent),
// seed (of what gets lost and how late it comes), link=off, capture=FILE, and the back end's own. The error names what
// is wrong and what is allowed.
struct nic *nic_new(struct machine *machine, const char *id, const char *backend, const char *mac, const char *forwards,
                    const char *settings, GError **error);
void nic_free(struct nic *nic); // the card calls it in unrealize()
struct nic *nic_find(struct machine *machine, const char *id);
void nic_set_client(struct nic *nic, const struct nic_client *client, void *opaque);
static inline bool nic_takes_large(const struct nic *nic)
{
    return nic->backend->takes_large;
}
static inline bool nic_frames_are_whole(const struct nic *nic)
{
    return nic->backend->whole;
}

// ---- For the card: any thread, with or without the machine lock ----
void nic_send(struct nic *nic, const struct iovec *iov, unsigned count); // a frame from the guest
void nic_settle(struct nic *nic);                                        // after one or more: the card is done
void nic_resume(struct nic *nic);                                        // the card has room again
// ---- For the back end: its lock is held ----
void nic_receive(struct nic *nic, const uint8_t *frame, size_t length); // a frame for the guest
bool nic_has_room(struct nic *nic);                                     // false: read no more from the network for now
void nic_count_dropped(struct nic *nic);                                // a frame that could not be sent
bool nic_guest_takes_large(struct nic *nic);                            // frames of more than the wire's length

// ---- For people and programs: machine lock held ----
void nic_set_link(struct nic *nic, bool up);
bool nic_set_shape(struct nic *nic, const char *settings, GError **error); // rate, delay, jitter, loss, seed as above
bool nic_add_forward(struct nic *nic, const char *forward, GError **error);
bool nic_remove_forward(struct nic *nic, const char *forward, GError **error);
bool nic_capture_start(struct nic *nic, const char *file, GError **error); // pcapng
void nic_capture_stop(struct nic *nic);
char **nic_address_texts(struct nic *nic); // the guest's addresses as it announced them; g_strfreev()
char *nic_capture_path(struct nic *nic);   // NULL: no capture; g_free()

// ---- nic_settings.c ----
bool nic_take_settings(struct nic *nic, const char *settings, GError **error);
void nic_seed(struct nic *nic, uint64_t seed);                         // lock held; the same seed loses the same frames
bool nic_parse_mac(struct nic *nic, const char *text, GError **error); // NULL: derived from the id

// ---- nic_address.c ----
void nic_addresses_note(struct nic_addresses *addresses, const uint8_t *frame, size_t length); // from the guest
char **nic_addresses_text(const struct nic_addresses *addresses);                              // g_strfreev()

// ---- nic_capture.c ----
struct nic_capture *capture_open(const char *file, const char *name, GError **error);
void capture_frame(struct nic_capture *capture, int64_t wall, bool from_guest, const uint8_t *data, size_t length);
void capture_close(struct nic_capture *capture);

#endif
