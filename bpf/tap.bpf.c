// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * The socket filter of an AF_PACKET socket of type SOCK_DGRAM: it reads a packet
 * from its IP header on and returns how many bytes of it the socket gets. It
 * cannot change or delay the packet. It leaves a packet out where user space has
 * said that it is not needed, and of HTTP/2 what is inside DATA frames: walk.h. Of
 * payload it reads nothing but frame headers and the last bytes of what it cuts.
 *
 * Linux 5.8 (CAP_BPF, ring buffers), CAP_BPF and CAP_NET_RAW. No loops, no
 * packet pointers and only fixed-length loads, so that the verifier accepts it
 * with its Spectre rules, which apply without CAP_PERFMON. No atomic operations but
 * addition, which Linux before 5.12 has not: two CPUs may change a cursor at once,
 * and the walk then loses its way.
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

/*
 * What lies on the stack and has a known value, such as the key of a map, is written
 * 8 bytes at a time, also where 4 are read: without CAP_PERFMON the verifier refuses
 * to write 4 over what it has noted of 8.
 */
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
	__u64 length;  /* of the packet, from its IP header on, without link padding */
	__u64 headers; /* of them up to the TCP header */
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

static __always_inline __u64 hash_ends(const __u64 *source, const __u64 *destination, __u16 from, __u16 to)
{
	__u64 h = hash_seed;

	h = mix(h, source[0]);
	h = mix(h, source[1]);
	h = mix(h, destination[0]);
	h = mix(h, destination[1]);
	h = mix(h, (__u64)from << 16 | to);
	return h ? h : 1;
}

static __always_inline __u64 direction_id(const struct segment *s, const struct tcp *t)
{
	return hash_ends(s->source, s->destination, t->source, t->destination);
}

static __always_inline __u64 other_direction_id(const struct segment *s, const struct tcp *t)
{
	return hash_ends(s->destination, s->source, t->destination, t->source);
}

#define READ(x) (*(volatile __u64 *)&(x))

static __always_inline struct tap_skip *skip_at(__u64 id, __u32 neighbour)
{
	__u64 slot = (id & (TAP_SKIP_SLOTS - 1)) ^ neighbour;

	return bpf_map_lookup_elem(&skips, &slot);
}

/*
 * A direction lies in the slot that its hash names or in that slot's neighbour.
 * Returns the range that is not needed: span << 32 | from. No pointer that may be 0
 * leaves the functions that look one up: the verifier follows it, as if the CPU had
 * mispredicted, to where it is used.
 */
static __always_inline __u64 skip_of(__u64 id)
{
	struct tap_skip *s = skip_at(id, 0);

	if (s && s->id == id)
		return READ(s->from);
	s = skip_at(id, 1);
	if (s && s->id == id)
		return READ(s->from);
	return 0;
}

static __always_inline void end_skip(__u64 id)
{
	struct tap_skip *s = skip_at(id, 0);

	if (s && s->id == id)
		READ(s->from) = 0;
	s = skip_at(id, 1);
	if (s && s->id == id)
		READ(s->from) = 0;
}

static __always_inline int port_is_set(__u32 base, __u16 port)
{
	__u64 word = base + (port >> 6);
	__u64 *bits = bpf_map_lookup_elem(&ports, &word);

	return bits && *bits >> (port & 63) & 1;
}

#include "walk.h"

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
 * One of which all is needed, as far as is known, is cut a little later.
 */
static __always_inline __u32 ration(struct __sk_buff *skb, __u32 headers, __u32 payload, __u32 needed, struct tap_counters *c)
{
	__u64 which = skb->ifindex != LOOPBACK_IFINDEX;
	struct tap_room *room = bpf_map_lookup_elem(&rooms, &which);

	if (!room)
		return payload;
	if (payload > TAP_CUT && room->limit) {
		long long held = *(volatile __u64 *)&room->given - *(volatile __u64 *)&room->taken;

		if (held > (long long)(needed ? 3 * room->limit : room->limit)) {
			COUNT(cut, 1);
			payload = TAP_CUT;
		}
	}
	__sync_fetch_and_add(&room->given, headers + payload + TAP_OVERHEAD);
	return payload;
}

static __always_inline int is_not_needed(__u64 range, __u32 seq, __u32 payload)
{
	__u32 offset = seq - (__u32)range;

	return offset < range >> 32 && (__u64)offset + payload <= range >> 32;
}

static __always_inline int tap_segment(struct __sk_buff *skb, struct segment *s, struct tap_counters *c, int walking)
{
	__u32 headers, payload, seq, keep, given, needed = 0;
	struct tcp t;
	__u64 id;

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
	id = direction_id(s, &t);
	seq = __builtin_bswap32(t.seq);
	keep = payload;
	if (t.flags & TCP_SYN) {
		/* A new connection on the same ports: what was said of the last one is void. */
		end_skip(id);
		if (walking)
			end_walk(id);
	} else if (is_not_needed(skip_of(id), seq, payload)) {
		keep = WALK_OMIT;
	} else if (walking && payload) {
		keep = walk(skb, id, headers, payload, seq);
		if (keep == (__u32)WALK_PREFACE) {
			claim(id, seq + PREFACE);
			claim(other_direction_id(s, &t), __builtin_bswap32(t.ack));
			keep = walk(skb, id, headers, payload, seq);
			if (keep == (__u32)WALK_PREFACE)
				keep = payload;
		}
	}
	if (keep == (__u32)WALK_WHOLE) {
		keep = payload;
		needed = 1;
	}
	if (keep == (__u32)WALK_OMIT) {
		COUNT(omitted_bytes, payload);
		if (!(t.flags & (TCP_FIN | TCP_RST))) {
			COUNT(omitted, 1);
			return 0;
		}
		keep = payload = 0;
	}
	COUNT(captured, 1);
	if (keep < payload)
		COUNT(omitted_bytes, payload - keep);
	given = ration(skb, headers, keep, needed, c);
	if (walking && given < keep)
		send_end(skb, id, seq, headers, payload, c);
	return headers + given;
}

static __always_inline int tap_packet(struct __sk_buff *skb, int walking)
{
	struct tap_counters *c = the_counters();
	struct segment s = {};
	int protocol;

	if (!c)
		return 0;
	COUNT(seen, 1);
	if (skb->ifindex == LOOPBACK_IFINDEX && skb->pkt_type == PACKET_OUTGOING) {
		COUNT(loopback_copy, 1);
		return 0;
	}
	switch (ntohs(skb->protocol)) {
	case ETH_P_IP:
		protocol = parse_ipv4(skb, &s, c);
		break;
	case ETH_P_IPV6:
		protocol = parse_ipv6(skb, &s, c);
		break;
	default:
		COUNT(not_tcp, 1);
		return 0;
	}
	return protocol ? tap_segment(skb, &s, c, walking) : 0;
}

SEC("socket")
int tap(struct __sk_buff *skb)
{
	return tap_packet(skb, 0);
}

/* For kernels whose verifier takes it. */
SEC("socket")
int tap_walking(struct __sk_buff *skb)
{
	return tap_packet(skb, 1);
}
