/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk: from one HTTP/2 frame header to the next, within a packet, so that of a
 * large packet no more is captured than the headers of its DATA frames. Those that
 * are not at the packet's start go to user space beside it, as pieces.
 *
 * Nothing here decides what is left out rightly. Pieces are captured bytes at a
 * sequence number, and the parser in user space accepts a hole only inside the
 * payload of a frame whose header it has. If the walk is mistaken, it sees a gap.
 */
#pragma once

#include "frames.h"
#include "slots.h"

enum {
	WALK_OMIT = -1,    /* of a packet nothing is needed */
	WALK_WHOLE = -3,   /* everything is, as far as is known */
	WALK_PREFACE = -2, /* an HTTP/2 connection starts with it, and has no slots yet */

	WALK_LEAST = 512,  /* bytes of payload that are worth cutting */
	PLACE = 32,        /* bytes that are rather captured in place than left out before a header */
	REPEATS = 15,
};

/* Tells whether a cursor says where in a packet the next frame is. */
static __always_inline int leads(__u64 at, __u32 seq, __u32 payload)
{
	__u32 ahead = (__u32)at - seq, held = at >> TAP_CURSOR_HELD & 0xf;

	if (!at)
		return 0;
	return ahead <= payload || ahead <= (at >> TAP_CURSOR_SPAN & 0xffffff) || (held && held == -ahead);
}

/* Makes the n bytes of a header at the walk's position reach user space: in place, or as a piece. */
static __always_inline void need(struct step *r, __u64 lo, __u64 hi, __u32 n, struct tap_counters *c)
{
	if (r->pos <= r->keep + PLACE) {
		r->keep = r->pos + n;
	} else if (!r->whole) {
		if (r->length == n && r->lo == lo && r->hi == hi && r->repeats < REPEATS) {
			r->repeats++;
			return;
		}
		if (r->length)
			send(r, c);
		r->lo = lo;
		r->hi = hi;
		r->seq = r->first + r->pos;
		r->length = n;
		r->repeats = 0;
	}
}

enum which {
	AT_NOTHING = -1,
	AT_NEXT,
	AT_HOLE,
	AT_EARLY,
};

/* DATA frames are mostly of one length: tells whether that leads to a frame in the packet. */
static __always_inline int guess(struct __sk_buff *skb, struct step *r, __u32 at, __u32 base, __u32 payload, __u32 seq)
{
	__u32 size = frame_length(r->model) + FRAME_HEADER;
	__u64 x = 0;

	if (!r->model)
		return 0;
	r->pos = size - 1 - (seq - at - 1) % size;
	r->span = r->pos;
	r->held = r->carry = 0;
	return r->pos + FRAME_HEADER <= payload && !bpf_skb_load_bytes(skb, base + r->pos, &x, sizeof(x)) &&
	       (__u32)x == (__u32)r->model && is_large_data(x);
}

/* Goes to where a cursor is in the packet. */
static __always_inline void go_to(struct step *r, __u64 at, __u32 seq)
{
	r->span = at >> TAP_CURSOR_SPAN & 0xffffff;
	r->pos = (__u32)at - seq;
	r->carry = 0;
	if ((int)r->pos < 0) {
		r->carry = -r->pos & 15;
		r->pos = 0;
	}
}

/* Finds where in a packet the next frame header is. Returns the cursor that says so. */
static __always_inline int locate(struct __sk_buff *skb, struct tap_walk *w, struct step *r, __u32 base, __u32 payload, __u32 seq)
{
	__u64 next = READ(w->next), hole = READ(w->hole), early = READ(w->early);

	r->model = READ(w->model);
	r->same = 0;
	if (leads(next, seq, payload)) {
		r->held = FIELD(w, held[0]);
		go_to(r, next, seq);
		r->same = r->pos <= r->span;
		return AT_NEXT;
	}
	if (leads(hole, seq, payload)) {
		r->held = FIELD(w, held[1]);
		go_to(r, hole, seq);
		return AT_HOLE;
	}
	if (!next)
		return AT_NOTHING;
	if ((int)(seq - (__u32)next) < 0) {
		if (hole && (int)(seq - (__u32)hole) > 0 && guess(skb, r, hole, base, payload, seq))
			return AT_HOLE;
		return AT_NOTHING;
	}
	/* The packet came before others, or the walk has lost track. */
	if (guess(skb, r, next, base, payload, seq)) {
		FIELD(w, hole) = next;
		FIELD(w, held[1]) = FIELD(w, held[0]);
		return AT_NEXT;
	}
	r->held = 0;
	if (leads(early, seq, payload)) {
		go_to(r, early, seq);
		/* Where a frame that started there leads to is another one: that is certain enough. */
		if (is_data(skb, base, r->pos, payload)) {
			FIELD(w, hole) = next;
			FIELD(w, held[1]) = FIELD(w, held[0]);
			FIELD(w, early) = 0;
			return AT_NEXT;
		}
	} else {
		/* Perhaps a frame starts with it: that will show when the walk gets there. */
		FIELD(w, early) = 0;
		w->early_seq = seq;
		r->pos = r->span = r->carry = 0;
	}
	return AT_EARLY;
}

static __always_inline __u64 low_bytes(__u32 n)
{
	return ~(~0ULL << 4 * n << 4 * n); /* n may be 8 */
}

/*
 * Walks over a frame. Returns 0 if there is no whole header of one. The function is
 * global, so that the verifier looks at it once, and not once for each frame.
 */
__noinline int step(struct __sk_buff *skb)
{
	struct step *r = the_step();
	struct tap_counters *c = the_counters();
	__u32 carry, pos, size, end;
	__u64 x[2] = {0, 0}, mask, key;

	if (!r || !c)
		return 0;
	carry = r->carry & 15;
	pos = r->pos;
	if (pos >= r->payload || r->payload - pos + carry < FRAME_HEADER)
		return 0;
	/* Of a header that started before the packet, what came then replaces what is before this packet's payload. */
	if (bpf_skb_load_bytes(skb, r->base + pos - carry, x, FRAME_HEADER))
		return 0;
	mask = low_bytes(carry);
	x[0] = (x[0] & ~mask) | (r->held & mask);
	key = frame_key(x[0], x[1]);
	if (!key || key != r->last || carry)
		r->same = 0;
	r->last = key;
	r->frames++;
	size = frame_length(x[0]);
	end = FRAME_HEADER - carry;
	if (is_whole(x[0])) {
		if (pos > r->keep + PLACE || end + size > r->payload - pos)
			r->whole = 1;
		end += size;
		size = 0;
	} else if (!(x[0] >> 24 & 0xff) && size >= MODEL_LEAST) {
		r->model = x[0];
	}
	need(r, x[0], x[1], end, c);
	r->carry = 0;
	r->span = size;
	r->pos = pos + end + size;
	return 1;
}

/*
 * A socket may have a filter of no more than about 2,500 instructions (optmem_max,
 * before Linux 6.8), and in a loop the verifier follows every way through it.
 */
__noinline int steps_8(struct __sk_buff *skb)
{
#pragma unroll
	for (int i = 0; i < 8; i++)
		if (!step(skb))
			return 0;
	return 1;
}

__noinline int steps_64(struct __sk_buff *skb)
{
#pragma unroll
	for (int i = 0; i < 8; i++)
		if (!steps_8(skb))
			return 0;
	return 1;
}

/* Notes the start of a header that the packet ends with. */
static __always_inline void hold(struct __sk_buff *skb, struct step *r, struct tap_counters *c)
{
	__u32 left = r->payload - r->pos & 15, carry = r->carry & 15;
	__u64 x = 0;

	if (bpf_skb_load_bytes(skb, r->base + r->payload - sizeof(x), &x, sizeof(x)))
		return;
	x >>= 64 - 8 * left & 63;
	need(r, x, 0, left, c);
	r->held = (r->held & low_bytes(carry)) | x << (8 * carry & 63);
	r->pos -= carry;
	r->carry = left + carry;
	r->span = 0;
}

/*
 * Adds the frames of a packet to the run that is behind it, or starts one with them,
 * for which the one before is sent. Returns 0 if that cannot be.
 */
static __always_inline int extend(struct step *r, __u32 neighbour, __u32 start, struct tap_counters *c)
{
	__u64 check = r->last * 0x9E3779B97F4A7C15ULL >> 48, *at = run_at(r->id, neighbour);
	__u64 run, bytes, piece[3];

	if (!at)
		return 0;
	run = READ(*at);
	bytes = (run >> TAP_RUN_FRAMES & TAP_RUN_MOST) * (frame_length(r->last) + FRAME_HEADER);
	if (run && ((run & 0xffff) != check || (run >> TAP_RUN_FRAMES & TAP_RUN_MOST) + r->frames > TAP_RUN_MOST ||
		    bytes > TAP_RUN_BYTES || (__u32)(run >> TAP_RUN_SEQ) + (__u32)bytes != start)) {
		piece[0] = (run >> TAP_RUN_SEQ) << 32 | (__u32)r->id;
		piece[1] = run;
		piece[2] = 0;
		if (bpf_ringbuf_output(&pieces, piece, sizeof(piece), BPF_RB_NO_WAKEUP))
			return 0;
		COUNT(pieces, 1);
		READ(*at) = 0;
		if (bytes > TAP_RUN_BYTES && (run & 0xffff) == check)
			return 0;
		run = 0;
	}
	if (!run)
		run = (__u64)start << TAP_RUN_SEQ | check;
	READ(*at) = run + ((__u64)r->frames << TAP_RUN_FRAMES);
	return 1;
}

/*
 * Walks the frames in a packet. Returns how many bytes of the payload are needed
 * besides pieces, or WALK_OMIT.
 */
__noinline __u32 walk(struct __sk_buff *skb, __u64 id, __u32 base, __u32 payload, __u32 seq)
{
	int which = walk_of(id), neighbour = which & 1, omit = 0;
	struct tap_counters *c;
	struct tap_walk *w;
	struct step *r;
	__u32 start;
	__u64 at;

	if (which < 0)
		return is_preface(skb, base, payload) ? (__u32)WALK_PREFACE : payload;
	w = walk_at(id, neighbour);
	if (!w)
		return payload;
	r = the_step();
	if (!r)
		return payload;
	c = the_counters();
	if (!c)
		return payload;
	which = locate(skb, w, r, base, payload, seq);
	if (which == AT_NOTHING || which == AT_EARLY)
		COUNT(unsynced, 1);
	if (which == AT_NOTHING)
		return WALK_WHOLE;
	r->last = FIELD(w, last);
	/* The last byte of a payload may end a message, but not of one that may be in a run. */
	if (r->pos > payload || (r->pos == payload && r->same && r->last)) {
		if (which == AT_EARLY)
			return WALK_WHOLE;
		/* Content of HTTP/1 may look like a preface: user space shall see that something is missing. */
		return w->user ? WALK_OMIT : 0;
	}
	r->id = id;
	r->base = base;
	r->payload = payload;
	r->first = seq;
	r->length = r->repeats = r->keep = r->frames = 0;
	start = seq + r->pos;
	/* What is before the header is no payload that is left out, or that is not known yet. */
	r->whole = r->pos > r->span || which == AT_EARLY || payload < WALK_LEAST;
#pragma unroll
	for (int i = 0; i < TAP_FRAMES / 64; i++)
		if (!steps_64(skb))
			break;
	if (r->pos < payload) {
		if (payload - r->pos + r->carry < FRAME_HEADER)
			hold(skb, r, c);
		else
			r->whole = 1; /* too many for one packet */
	}
	/* A slot that user space has not confirmed may be taken, and the run with it. */
	if (r->same && r->frames && r->pos >= payload && w->user)
		omit = extend(r, neighbour, start, c);
	if (r->length && !r->whole && !omit)
		send(r, c);
	at = cursor(seq + r->pos, r->span, r->carry);
	if (which == AT_EARLY) {
		FIELD(w, early) = r->carry ? 0 : at;
	} else if (which == AT_HOLE) {
		FIELD(w, held[1]) = r->held;
		FIELD(w, hole) = at;
	} else {
		__u64 early = FIELD(w, early);

		if (early && w->early_seq == (__u32)at && !r->carry) {
			at = early;
			FIELD(w, early) = 0;
			r->last = 0;
		}
		FIELD(w, held[0]) = r->held;
		FIELD(w, last) = r->last;
		FIELD(w, model) = r->model;
		FIELD(w, next) = at;
	}
	if (omit)
		return WALK_OMIT;
	if (r->whole || r->keep >= payload)
		return WALK_WHOLE;
	COUNT(walked, 1);
	return r->keep;
}
