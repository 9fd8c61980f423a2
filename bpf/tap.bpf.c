// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * The socket filter of an AF_PACKET socket of type SOCK_DGRAM: it reads a packet
 * from its IP header on and returns how many bytes of it the socket gets. It
 * cannot change or delay the packet. It leaves a packet out where user space has
 * said that it is not needed, and of HTTP/2 what is inside DATA frames: walk.h. Of
 * payload it reads nothing but frame headers and the first and last bytes of what it
 * cuts.
 *
 * Linux 5.8 (CAP_BPF, ring buffers), CAP_BPF and CAP_NET_RAW. No loops, no
 * packet pointers and only fixed-length loads, so that the verifier accepts it
 * with its Spectre rules, which apply without CAP_PERFMON. No atomic operations but
 * addition, which Linux before 5.12 has not: two CPUs may change a cursor at once,
 * and the walk then loses its way.
 */

#include "packet.h"

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

static __always_inline struct tap_counters *the_counters(void)
{
	__u64 row = bpf_get_smp_processor_id() & (TAP_CPUS - 1);

	return bpf_map_lookup_elem(&counters, &row);
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2); /* of loopback, and of all else */
	__type(key, __u32);
	__type(value, struct tap_room);
} rooms SEC(".maps");

#define READ(x) (*(volatile __u64 *)&(x))

static __always_inline struct tap_skip *skip_at(__u64 id, __u32 neighbour)
{
	__u64 slot = (id & (TAP_SKIP_SLOTS - 1)) ^ neighbour;

	return bpf_map_lookup_elem(&skips, &slot);
}

/*
 * A direction lies in the slot that its hash names or in that slot's neighbour.
 * Returns the range that is not needed, and whether the direction is brief:
 * span << 32 | from. No pointer that may be 0 leaves the functions that look one up:
 * the verifier follows it, as if the CPU had mispredicted, to where it is used.
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
static __always_inline __u32 ration(struct __sk_buff *skb, __u32 headers, __u32 payload, __u32 needed)
{
	__u64 which = skb->ifindex != LOOPBACK_IFINDEX;
	struct tap_room *room = bpf_map_lookup_elem(&rooms, &which);

	if (!room)
		return payload;
	if (payload > TAP_CUT && room->limit) {
		long long held = *(volatile __u64 *)&room->given - *(volatile __u64 *)&room->taken;

		if (held > (long long)(needed ? 3 * room->limit : room->limit))
			payload = TAP_CUT;
	}
	__sync_fetch_and_add(&room->given, headers + payload + TAP_OVERHEAD);
	return payload;
}

static __always_inline int is_not_needed(__u64 range, __u32 seq, __u32 payload)
{
	__u32 offset = seq - (__u32)range, span = range >> 32 & ~TAP_BRIEF;

	return offset < span && (__u64)offset + payload <= span;
}

/*
 * Tells whether of a packet the start and the end are enough. The end is a piece;
 * without pieces nothing would tell where the content of a brief direction ends.
 */
static __always_inline int is_brief(__u64 range, __u32 payload, int walking)
{
	return walking && payload > TAP_LARGE && (range >> 32 & TAP_BRIEF);
}

static __always_inline int is_capital(__u64 x)
{
	return (x & 0xff) - 'A' < 26;
}

/* Tells whether a message may start with a packet: a method, or HTTP. */
static __always_inline int may_start(struct __sk_buff *skb, __u32 base)
{
	__u64 x = 0;

	return !bpf_skb_load_bytes(skb, base, &x, sizeof(x)) && is_capital(x) && is_capital(x >> 8) && is_capital(x >> 16);
}

static __always_inline int tap_segment(struct __sk_buff *skb, struct segment *s, struct tap_counters *c, int walking)
{
	__u32 headers, payload, seq, keep, given, needed = 0, cut = 0;
	struct tcp t;
	__u64 id, range;

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
	range = skip_of(id);
	if (t.flags & TCP_SYN) {
		/* A new connection on the same ports: what was said of the last one is void. */
		end_skip(id);
		if (walking)
			end_walk(id);
	} else if (is_not_needed(range, seq, payload)) {
		keep = WALK_OMIT;
	} else if (is_brief(range, payload, walking)) {
		keep = may_start(skb, headers) ? TAP_LARGE : 0;
		cut = 1;
	} else if (walking && payload) {
		keep = walk(skb, id, headers, payload, seq);
		if (keep == (__u32)WALK_PREFACE) {
			__u64 other = other_direction_id(s, &t);

			claim(id, seq + PREFACE);
			if (walk_of(other) < 0)
				claim(other, __builtin_bswap32(t.ack));
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
	given = ration(skb, headers, keep, needed);
	if (cut || given < keep) {
		COUNT(cut, 1);
		if (walking)
			send_end(skb, id, seq, headers, payload, c);
	}
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
