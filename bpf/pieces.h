/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that go to user space beside their packet. */
#pragma once

#include "packet.h"

enum {
	PIECE = 15,
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TAP_PIECES_BYTES);
} pieces SEC(".maps");

/*
 * Where a walk is. It lies in a map, so that the verifier takes its values for
 * unknown and need not follow each combination of them.
 */
struct step {
	__u64 id, held, model, lo, hi; /* lo, hi: a frame header that waits to be sent */
	__u64 last;                    /* frame_key of the last frame */
	__u32 seq;                     /* of the header that waits */
	__u32 length, repeats;         /* as in tap_piece */
	__u32 pos;                     /* of the next header in the payload */
	__u32 carry;                   /* bytes of it that came before the payload */
	__u32 span;                    /* bytes before it that are of a payload */
	__u32 keep;                    /* bytes from the payload's start on that are captured in place */
	__u32 whole;                   /* everything is needed */
	__u32 frames, same;            /* frame headers so far; all are like the one before them */
	__u32 base, payload, first;    /* of the packet: offset of its payload, bytes of that, sequence number */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct step);
} steps SEC(".maps");

static __always_inline struct step *the_step(void)
{
	__u64 zero = 0;

	return bpf_map_lookup_elem(&steps, &zero);
}

static __always_inline void send(struct step *r, struct tap_counters *c)
{
	__u64 piece[3] = {
		(__u64)r->seq << 32 | (__u32)r->id, r->lo, (r->hi & ~(0xffULL << 56)) | (__u64)(r->length | r->repeats << 4) << 56,
	};

	if (bpf_ringbuf_output(&pieces, piece, sizeof(piece), BPF_RB_NO_WAKEUP)) {
		COUNT(pieces_full, 1);
		r->whole = 1;
	} else {
		COUNT(pieces, 1);
	}
}

/* Sends the end of a packet that is cut: it may be that of a message. */
static __always_inline void send_end(struct __sk_buff *skb, __u64 id, __u32 seq, __u32 headers, __u32 payload, struct tap_counters *c)
{
	__u64 end[2] = {0, 0};
	struct step *r = the_step();

	if (!r || bpf_skb_load_bytes(skb, headers + payload - PIECE, end, PIECE))
		return;
	r->id = id;
	r->lo = end[0];
	r->hi = end[1];
	r->seq = seq + payload - PIECE;
	r->length = PIECE;
	r->repeats = 0;
	send(r, c);
}
