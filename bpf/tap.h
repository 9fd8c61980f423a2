/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the filter and user space share. Go types are generated from this file,
 * and sizes are read from the loaded maps: nothing here is written a second time.
 */
#pragma once

#include "kernel.h"

enum tap_limits {
	TAP_SKIP_SLOTS = 8192, /* power of two */
	TAP_CPUS = 32,         /* counter rows; CPUs beyond share them */
	TAP_PORT_WORDS = 1024, /* 65,536 ports, a bit each */
	TAP_CUT = 2048,        /* bytes of payload that a packet is cut to when room is short */
	TAP_LARGE = 16 << 10,  /* bytes of payload above which a packet of a brief direction is cut */
	TAP_OVERHEAD = 104,    /* bytes that a packet takes in a ring beside its own, about */

	TAP_WALK_SLOTS = 512,        /* power of two */
	TAP_RUN_CPUS = 16,           /* power of two */
	TAP_FRAMES = 1024,           /* HTTP/2 frames that are walked in a packet */
	TAP_PIECES_BYTES = 128 << 10, /* of pieces that can wait for user space */
};

/*
 * How full the rings are, those of loopback and those of all else: bytes given
 * by the filter, and taken by user space or known not to have arrived.
 */
struct tap_room {
	__u64 given;
	__u64 taken;
	__u64 limit; /* with more than this between them, packets are cut; 0: never */
	__u64 unused[5]; /* a room fills a cache line */
};

/*
 * A direction of a connection, and the sequence numbers in it that user space
 * has no need of: [from, from + span). One 64-bit store changes the range, so
 * that the filter never sees half of one.
 *
 * A direction may also be brief: user space has lost count of the content in it, and
 * of large packets needs but the head of a message that starts one, and the end.
 */
struct tap_skip {
	__u64 id; /* hash of addresses and ports, 0 if free */
	__u32 from;
	__u32 span; /* below TAP_BRIEF, which is added if the direction is brief */
};

#define TAP_BRIEF (1U << 31)

/*
 * A direction of an HTTP/2 connection, and where its next frame header is. A
 * cursor is one 64-bit word, so that nobody ever sees half of one.
 */
struct tap_walk {
	__u64 id;        /* as that of a tap_skip */
	__u64 next;      /* cursor: TAP_CURSOR */
	__u64 hole;      /* cursor in what packets that came too early have passed over */
	__u64 early;     /* cursor behind packets that came too early, if a frame starts at early_seq */
	__u64 held[2];   /* bytes of the header at next, at hole, if a packet ended in it */
	__u64 model;     /* the first 8 bytes of the last DATA header */
	__u64 last;      /* frame_key of the frame before next */
	__u32 early_seq;
	__u32 user;      /* not 0 if user space wrote the slot; else it may be taken */
};

/*
 * A cursor has the sequence number of a frame header in its lower half, then how
 * many bytes before that are of a payload that is not needed, then how many bytes
 * of the header the last packet had.
 */
enum tap_cursor {
	TAP_CURSOR_SPAN = 32, /* 24 bits */
	TAP_CURSOR_HELD = 56, /* 4 bits */
	TAP_CURSOR_VALID = 63,
};

/*
 * A run is frames with the same header, which is also that of the frame before
 * them: nothing of them is needed but how many there are. It has the sequence
 * number of the first in its upper half, then their number, then a hash of the
 * header. A slot has one for each CPU, so that none ends what another adds to; each
 * is one word, so that user space may read it while it grows.
 */
enum tap_run {
	TAP_RUN_SEQ = 32,
	TAP_RUN_FRAMES = 16,
	TAP_RUN_MOST = 0xffff, /* frames */
	TAP_RUN_BYTES = 16 << 20, /* a packet in about so many shows where the direction is */
};

/* A few bytes of a direction, captured beside its packets. */
struct tap_piece {
	__u32 tag; /* the lower half of the id */
	__u32 seq;
	__u8 bytes[15];
	/*
	 * How many bytes; and in the upper half how many more times they come, each
	 * after the payload of the frame that they are the header of. 0: the first 8
	 * bytes are a run.
	 */
	__u8 length;
};

/* What became of the packets that a CPU passed through the filter. */
struct tap_counters {
	__u64 seen;          /* packets of any kind on the watched interfaces */
	__u64 not_tcp;       /* not TCP over IPv4 or IPv6 */
	__u64 malformed;     /* headers shorter than they say */
	__u64 fragments;     /* IP fragments after the first: never parsed */
	__u64 own;           /* of this sidecar's own connections */
	__u64 excluded;      /* of ports that the user excluded */
	__u64 empty;         /* pure acknowledgements */
	__u64 omitted;       /* not needed, as user space said */
	__u64 omitted_bytes; /* their payload, in bytes */
	__u64 captured;      /* handed to user space */
	__u64 cut;           /* of these, cut because user space lags behind or a direction is brief */
	__u64 loopback_copy; /* the sent copy of a loopback packet */
	__u64 walked;        /* of the captured, those cut to what of their frames is needed */
	__u64 unsynced;      /* of the captured, those of a walk whose frames were not found */
	__u64 pieces;        /* captured beside packets */
	__u64 pieces_full;   /* that found no room */
};
