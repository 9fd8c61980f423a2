// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * The socket filter of an AF_PACKET socket of type SOCK_DGRAM: it reads a packet
 * from its IP header on and returns how many bytes of it the socket gets. It
 * cannot change or delay the packet. It reads no payload, and it leaves a packet
 * out only where user space has said that it is not needed.
 *
 * Linux 5.5 (BPF_F_MMAPABLE), CAP_BPF (5.8) and CAP_NET_RAW. No loops, no
 * packet pointers and only fixed-length loads, so that the verifier accepts it
 * with its Spectre rules, which apply without CAP_PERFMON.
 */

#include "tap.h"

enum {
	PACKET_OUTGOING = 4,
	LOOPBACK_IFINDEX = 1, /* in every network namespace */
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86DD,
	IPPROTO_HOPOPTS = 0,
	IPPROTO_TCP = 6,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_DSTOPTS = 60,
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TAP_SKIP_SLOTS);
	__type(key, __u32);
	__type(value, struct tap_skip);
} skips SEC(".maps");

/* Ports of this sidecar's own connections, then ports that the user excluded. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * TAP_PORT_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TAP_CPUS);
	__type(key, __u32);
	__type(value, struct tap_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2); /* of loopback, and of all else */
	__type(key, __u32);
	__type(value, struct tap_room);
} rooms SEC(".maps");

volatile const __u64 hash_seed = 0;

struct ipv4 {
	__u8 version_ihl, tos;
	__u16 total_length, id, fragment;
	__u8 ttl, protocol;
	__u16 checksum;
	__u32 source, destination;
};

struct ipv6 {
	__u32 flow;
	__u16 payload_length;
	__u8 next_header, hop_limit;
	__u64 source[2], destination[2];
};

struct extension {
	__u8 next_header, length;
};

struct tcp {
	__u16 source, destination;
	__u32 seq, ack;
	__u8 offset, flags;
	__u16 window, checksum, urgent;
};

struct segment {
	__u64 source[2], destination[2];
	__u32 length;  /* of the packet, from its IP header on, without link padding */
	__u32 headers; /* of them up to the TCP header */
};

/*
 * The offset is an immediate of the instruction, so that the compiler cannot
 * merge two counts into one with an offset in a register: without CAP_PERFMON the
 * verifier refuses such arithmetic on pointers.
 */
#define COUNT(field, n)                                                                            \
	do {                                                                                       \
		__u64 *counter = (__u64 *)c;                                                       \
		asm volatile("%0 += %1" : "+r"(counter) : "i"(__builtin_offsetof(struct tap_counters, field))); \
		__sync_fetch_and_add(counter, n);                                                  \
	} while (0)

/* The same as in Go: skipID. */
static __always_inline __u64 mix(__u64 h, __u64 w)
{
	h = (h ^ w) * 0x9E3779B97F4A7C15ULL;
	return h ^ h >> 32;
}

static __always_inline __u64 direction_id(const struct segment *s, const struct tcp *t)
{
	__u64 h = hash_seed;

	h = mix(h, s->source[0]);
	h = mix(h, s->source[1]);
	h = mix(h, s->destination[0]);
	h = mix(h, s->destination[1]);
	h = mix(h, (__u64)t->source << 16 | t->destination);
	return h ? h : 1;
}

/* A direction lies in the slot that its hash names or in that slot's neighbour. */
static __always_inline struct tap_skip *skip_of(__u64 id)
{
	__u32 slot = id & (TAP_SKIP_SLOTS - 1);
	struct tap_skip *s = bpf_map_lookup_elem(&skips, &slot);

	if (s && s->id == id)
		return s;
	slot ^= 1;
	s = bpf_map_lookup_elem(&skips, &slot);
	return s && s->id == id ? s : 0;
}

static __always_inline int port_is_set(__u32 base, __u16 port)
{
	__u32 word = base + (port >> 6);
	__u64 *bits = bpf_map_lookup_elem(&ports, &word);

	return bits && *bits >> (port & 63) & 1;
}

/* Returns the transport protocol, 0 after counting where there is none to read. */
static __always_inline int parse_ipv4(struct __sk_buff *skb, struct segment *s, struct tap_counters *c)
{
	struct ipv4 ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip))) {
		COUNT(malformed, 1);
		return 0;
	}
	if (ip.protocol != IPPROTO_TCP) {
		COUNT(not_tcp, 1);
		return 0;
	}
	if (ntohs(ip.fragment) & 0x1fff) {
		COUNT(fragments, 1);
		return 0;
	}
	s->headers = (ip.version_ihl & 0xf) * 4;
	/* 0: a packet of more than 64 KiB (BIG TCP). */
	s->length = ip.total_length ? ntohs(ip.total_length) : skb->len;
	s->source[0] = s->destination[0] = 0;
	s->source[1] = ip.source;
	s->destination[1] = ip.destination;
	return IPPROTO_TCP;
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct segment *s, struct tap_counters *c)
{
	struct extension e;
	struct ipv6 ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip))) {
		COUNT(malformed, 1);
		return 0;
	}
	s->headers = sizeof(ip);
	s->length = ip.payload_length ? ntohs(ip.payload_length) + sizeof(ip) : skb->len;
	s->source[0] = ip.source[0];
	s->source[1] = ip.source[1];
	s->destination[0] = ip.destination[0];
	s->destination[1] = ip.destination[1];
	next = ip.next_header;
#pragma unroll
	for (int i = 0; i < 3; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			break;
		if (bpf_skb_load_bytes(skb, s->headers, &e, sizeof(e))) {
			COUNT(malformed, 1);
			return 0;
		}
		next = e.next_header;
		s->headers += (e.length + 1) * 8;
	}
	if (next == IPPROTO_TCP)
		return IPPROTO_TCP;
	if (next == IPPROTO_FRAGMENT)
		COUNT(fragments, 1);
	else
		COUNT(not_tcp, 1);
	return 0;
}

/* On loopback a packet has no direction; elsewhere only the local end is ours. */
static __always_inline int is_own(struct __sk_buff *skb, __u16 source, __u16 destination)
{
	if (skb->ifindex == LOOPBACK_IFINDEX)
		return port_is_set(0, source) || port_is_set(0, destination);
	return port_is_set(0, skb->pkt_type == PACKET_OUTGOING ? source : destination);
}

/*
 * Returns how much of a payload the ring may have. A packet that finds no room is
 * lost whole, head and all, and a large body fills any ring before user space has
 * had its turn to say that it is not needed. So when the ring is filling up, a
 * packet is cut: what is missing of it is a body, or else a gap like any other.
 */
static __always_inline __u32 ration(struct __sk_buff *skb, __u32 headers, __u32 payload, struct tap_counters *c)
{
	__u32 which = skb->ifindex != LOOPBACK_IFINDEX;
	struct tap_room *room = bpf_map_lookup_elem(&rooms, &which);

	if (!room)
		return payload;
	if (payload > TAP_CUT && room->limit) {
		long long held = *(volatile __u64 *)&room->given - *(volatile __u64 *)&room->taken;

		if (held > (long long)room->limit) {
			COUNT(cut, 1);
			payload = TAP_CUT;
		}
	}
	__sync_fetch_and_add(&room->given, headers + payload + TAP_OVERHEAD);
	return payload;
}

static __always_inline int tap_segment(struct __sk_buff *skb, struct segment *s, struct tap_counters *c)
{
	__u32 headers, payload, offset, start;
	struct tap_skip *skip;
	struct tcp t;

	if (bpf_skb_load_bytes(skb, s->headers, &t, sizeof(t))) {
		COUNT(malformed, 1);
		return 0;
	}
	headers = s->headers + (t.offset >> 4) * 4;
	if (headers > s->length || s->length > skb->len) {
		COUNT(malformed, 1);
		return 0;
	}
	payload = s->length - headers;
	if (is_own(skb, ntohs(t.source), ntohs(t.destination))) {
		COUNT(own, 1);
		return 0;
	}
	if (port_is_set(TAP_PORT_WORDS, ntohs(t.source)) || port_is_set(TAP_PORT_WORDS, ntohs(t.destination))) {
		COUNT(excluded, 1);
		return 0;
	}
	if (!payload && !(t.flags & (TCP_SYN | TCP_FIN | TCP_RST))) {
		COUNT(empty, 1);
		return 0;
	}
	skip = skip_of(direction_id(s, &t));
	if (skip) {
		if (t.flags & TCP_SYN) {
			/* A new connection on the same ports: what was said of the last one is void. */
			*(volatile __u64 *)&skip->from = 0;
		} else {
			__u64 range = *(volatile __u64 *)&skip->from;

			start = (__u32)range;
			offset = __builtin_bswap32(t.seq) - start;
			if (offset < range >> 32 && (__u64)offset + payload <= range >> 32) {
				COUNT(omitted_bytes, payload);
				if (!(t.flags & (TCP_FIN | TCP_RST))) {
					COUNT(omitted, 1);
					return 0;
				}
				payload = 0;
			}
		}
	}
	COUNT(captured, 1);
	return headers + ration(skb, headers, payload, c);
}

SEC("socket")
int tap(struct __sk_buff *skb)
{
	__u32 row = bpf_get_smp_processor_id() & (TAP_CPUS - 1);
	struct tap_counters *c = bpf_map_lookup_elem(&counters, &row);
	struct segment s;

	if (!c)
		return 0;
	COUNT(seen, 1);
	if (skb->ifindex == LOOPBACK_IFINDEX && skb->pkt_type == PACKET_OUTGOING) {
		COUNT(loopback_copy, 1);
		return 0;
	}
	switch (ntohs(skb->protocol)) {
	case ETH_P_IP:
		return parse_ipv4(skb, &s, c) ? tap_segment(skb, &s, c) : 0;
	case ETH_P_IPV6:
		return parse_ipv6(skb, &s, c) ? tap_segment(skb, &s, c) : 0;
	}
	COUNT(not_tcp, 1);
	return 0;
}
