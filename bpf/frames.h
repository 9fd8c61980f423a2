/* SPDX-License-Identifier: Apache-2.0 */
/* What a frame of HTTP/2 is, by its header (RFC 9113, section 4.1). */
#pragma once

#include "kernel.h"

enum {
	FRAME_HEADER = 9,
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_RST_STREAM = 3,
	FRAME_SETTINGS = 4,
	FRAME_PUSH_PROMISE = 5,
	FRAME_CONTINUATION = 9,
	FRAME_PADDED = 0x8,
	WINDOW_UPDATE = 0x08040000, /* the first 5 bytes of a header: 4 bytes of payload, no flags */
	PREFACE = 24,
	MODEL_LEAST = 1024, /* bytes of a DATA frame that others are likely to be like */
};

static __always_inline __u32 frame_length(__u64 lo)
{
	return (lo & 0xff) << 16 | (lo & 0xff00) | (lo >> 16 & 0xff);
}

/* Tells whether the payload of a frame is needed: the same as in Go, frame.whole. */
static __always_inline int is_whole(__u64 lo)
{
	switch (lo >> 24 & 0xff) {
	case FRAME_DATA:
		return (lo >> 32 & FRAME_PADDED) != 0;
	case FRAME_HEADERS:
	case FRAME_RST_STREAM:
	case FRAME_SETTINGS:
	case FRAME_PUSH_PROMISE:
	case FRAME_CONTINUATION:
		return 1;
	}
	return 0;
}

/*
 * Returns what is the same for all frames that may follow each other in a run, or 0
 * if there may be none of them: DATA of the same length and stream without flags;
 * WINDOW_UPDATE, of which nobody needs the stream. The same as in Go: frameKey.
 */
static __always_inline __u64 frame_key(__u64 lo, __u64 hi)
{
	if (!(lo & 0xffff000000ULL))
		return frame_length(lo) ? lo | (hi & 0xff) << 24 : 0;
	return (lo & 0xffffffffffULL) == WINDOW_UPDATE ? 0xffULL << 32 | WINDOW_UPDATE : 0;
}

/* Tells whether a header is likely that of a large DATA frame. */
static __always_inline int is_large_data(__u64 lo)
{
	return !(lo >> 24 & 0xff) && !(lo >> 32 & 0xfe) && !(lo >> 40 & 0xff) && frame_length(lo) >= MODEL_LEAST;
}

static __always_inline int is_data(struct __sk_buff *skb, __u32 base, __u32 pos, __u32 payload)
{
	__u64 x = 0;

	return pos + FRAME_HEADER <= payload && !bpf_skb_load_bytes(skb, base + pos, &x, sizeof(x)) && is_large_data(x);
}

/* "PRI * HTTP/2.0\r\n" (RFC 9113, section 3.4) */
static __always_inline int is_preface(struct __sk_buff *skb, __u32 base, __u32 payload)
{
	__u64 x[2] = {0, 0};

	return payload >= PREFACE && !bpf_skb_load_bytes(skb, base, x, sizeof(x)) &&
	       x[0] == 0x5448202a20495250ULL && x[1] == 0x0a0d302e322f5054ULL;
}
