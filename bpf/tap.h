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
	TAP_OVERHEAD = 104,    /* bytes that a packet takes in a ring beside its own, about */
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
 */
struct tap_skip {
	__u64 id; /* hash of addresses and ports, 0 if free */
	__u32 from;
	__u32 span;
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
	__u64 cut;           /* of these, cut because user space lags behind */
	__u64 loopback_copy; /* the sent copy of a loopback packet */
	__u64 unused[4];     /* a row fills whole cache lines */
};
