/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet is: its headers up to TCP, and the direction that it is of. */
#pragma once

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
