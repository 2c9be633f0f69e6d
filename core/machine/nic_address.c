// SPDX-License-Identifier: GPL-2.0-or-later
// Which addresses a guest uses, learnt from what it says on the wire itself: ARP (RFC 826), neighbour discovery
// (RFC 4861), and the address that it takes from a DHCP server (RFC 2131), for guests that have nothing else to say. So
// it works on every back end, whether the address came by DHCP or by hand.
#include "core/machine/nic.h"

#include <arpa/inet.h>
#include <string.h>

enum { TYPE_IPV4 = 0x0800, TYPE_ARP = 0x0806, TYPE_IPV6 = 0x86dd };
enum { ARP_LENGTH = 28, ARP_SENDER = 14, IPV6_LENGTH = 40, IPV6_SOURCE = 8 };
enum { NEXT_UDP = 17, UDP_LENGTH = 8 };
enum { DHCP_TO_SERVER = 1, DHCP_REQUEST = 3, DHCP_CLIENT = 12, DHCP_COOKIE = 236, DHCP_OPTIONS = 240 };
enum { NEXT_ICMPV6 = 58, NEIGHBOUR_SOLICITATION = 135, NEIGHBOUR_ADVERTISEMENT = 136 };

static void note_arp(struct nic_addresses *addresses, const uint8_t *arp, size_t length)
{
    static const uint8_t ethernet_ipv4[] = {0, 1, 8, 0, 6, 4}, nobody[4];
    if (length < ARP_LENGTH || memcmp(arp, ethernet_ipv4, sizeof ethernet_ipv4) != 0 ||
        memcmp(arp + ARP_SENDER, nobody, sizeof nobody) == 0) // a probe has no sender yet
        return;
    memcpy(addresses->ipv4, arp + ARP_SENDER, sizeof addresses->ipv4);
}

// The offset of the value of DHCP option WANTED of LENGTH bytes, 0: it is not there.
static size_t dhcp_option(const uint8_t *message, size_t size, uint8_t wanted, uint8_t length)
{
    for (size_t at = DHCP_OPTIONS; at < size && message[at] != 255; at += message[at] ? 2 + message[at + 1] : 1) {
        if (message[at] && (at + 1 >= size || size - at - 2 < message[at + 1]))
            return 0; // cut short
        if (message[at] == wanted && message[at + 1] == length)
            return at + 2;
    }
    return 0;
}

// A request names the address that was offered; a renewal, the one that it has.
static void note_dhcp(struct nic_addresses *addresses, const uint8_t *message, size_t size)
{
    static const uint8_t cookie[] = {99, 130, 83, 99}, nobody[4];
    if (size < DHCP_OPTIONS || message[0] != DHCP_TO_SERVER || memcmp(message + DHCP_COOKIE, cookie, 4) != 0)
        return;
    size_t type = dhcp_option(message, size, 53, 1), wish = dhcp_option(message, size, 50, 4);
    const uint8_t *address = wish ? message + wish : message + DHCP_CLIENT;
    if (type && message[type] == DHCP_REQUEST && memcmp(address, nobody, sizeof nobody) != 0)
        memcpy(addresses->ipv4, address, sizeof addresses->ipv4);
}

static void note_ipv4(struct nic_addresses *addresses, const uint8_t *packet, size_t length)
{
    size_t header = length ? (packet[0] & 15u) * 4 : 0;
    if (header < 20 || length < header + UDP_LENGTH || packet[9] != NEXT_UDP)
        return;
    const uint8_t *udp = packet + header;
    static const uint8_t from_client_to_server[] = {0, 68, 0, 67};
    if (memcmp(udp, from_client_to_server, sizeof from_client_to_server) == 0)
        note_dhcp(addresses, udp + UDP_LENGTH, length - header - UDP_LENGTH);
}

static bool link_local(const uint8_t *address)
{
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static void note_ipv6(struct nic_addresses *addresses, const uint8_t *packet, size_t length)
{
    static const uint8_t nobody[16];
    if (length < IPV6_LENGTH + 1u || packet[6] != NEXT_ICMPV6 ||
        (packet[IPV6_LENGTH] != NEIGHBOUR_SOLICITATION && packet[IPV6_LENGTH] != NEIGHBOUR_ADVERTISEMENT))
        return;
    const uint8_t *source = packet + IPV6_SOURCE;
    bool known = memcmp(addresses->ipv6, nobody, sizeof nobody) != 0;
    // One that others can reach is worth more than the link's own.
    if (memcmp(source, nobody, sizeof nobody) == 0 || (known && link_local(source) && !link_local(addresses->ipv6)))
        return;
    memcpy(addresses->ipv6, source, sizeof addresses->ipv6);
}

void nic_addresses_note(struct nic_addresses *addresses, const uint8_t *frame, size_t length)
{
    unsigned type = frame[12] << 8 | frame[13];
    if (type == TYPE_ARP)
        note_arp(addresses, frame + NIC_HEADER, length - NIC_HEADER);
    else if (type == TYPE_IPV4)
        note_ipv4(addresses, frame + NIC_HEADER, length - NIC_HEADER);
    else if (type == TYPE_IPV6)
        note_ipv6(addresses, frame + NIC_HEADER, length - NIC_HEADER);
}

char **nic_addresses_text(const struct nic_addresses *addresses)
{
    static const uint8_t nobody[16];
    GPtrArray *list = g_ptr_array_new();
    char text[INET6_ADDRSTRLEN];
    if (memcmp(addresses->ipv4, nobody, sizeof addresses->ipv4) != 0)
        g_ptr_array_add(list, g_strdup(inet_ntop(AF_INET, addresses->ipv4, text, sizeof text)));
    if (memcmp(addresses->ipv6, nobody, sizeof addresses->ipv6) != 0)
        g_ptr_array_add(list, g_strdup(inet_ntop(AF_INET6, addresses->ipv6, text, sizeof text)));
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(list, FALSE);
}
