/* SPDX-License-Identifier: Apache-2.0 */
/* Where the walk of each direction is. */
#pragma once

#include "pieces.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TAP_WALK_SLOTS);
	__type(key, __u32);
	__type(value, struct tap_walk);
} walks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TAP_WALK_SLOTS * TAP_RUN_CPUS);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");

/* As COUNT: so that the compiler cannot merge two fields into one at an offset in a register. */
#define FIELD(w, field)                                                                            \
	(*({                                                                                       \
		void *at_ = w;                                                                     \
		asm volatile("%0 += %1" : "+r"(at_) : "i"(__builtin_offsetof(struct tap_walk, field))); \
		(volatile __u64 *)at_;                                                             \
	}))

static __always_inline struct tap_walk *walk_at(__u64 id, __u32 neighbour)
{
	__u64 slot = (id >> 32 & (TAP_WALK_SLOTS - 1)) ^ neighbour;

	return bpf_map_lookup_elem(&walks, &slot);
}

/* Returns this CPU's run of a slot. */
static __always_inline __u64 *run_at(__u64 id, __u32 neighbour)
{
	__u64 slot = ((id >> 32 & (TAP_WALK_SLOTS - 1)) ^ neighbour) * TAP_RUN_CPUS + (bpf_get_smp_processor_id() & (TAP_RUN_CPUS - 1));

	return bpf_map_lookup_elem(&runs, &slot);
}

/* Returns the number of a direction's slot as its distance from the first possible, -1 if there is none. */
static __always_inline int walk_of(__u64 id)
{
	struct tap_walk *w = walk_at(id, 0);

	if (w && w->id == id)
		return 0;
	w = walk_at(id, 1);
	return w && w->id == id ? 1 : -1;
}

static __always_inline void end_walk(__u64 id)
{
	struct tap_walk *w = walk_at(id, walk_of(id) & 1);

	if (w && w->id == id)
		READ(w->next) = READ(w->hole) = 0;
}

static __always_inline __u64 cursor(__u32 seq, __u32 span, __u32 held)
{
	return 1ULL << TAP_CURSOR_VALID | (__u64)held << TAP_CURSOR_HELD | (__u64)span << TAP_CURSOR_SPAN | seq;
}

/*
 * Gives a direction that has none a slot, whose next frame header is at a sequence number. User
 * space is too late to do that for the first body of a connection. It may take the
 * slot for another one until it has confirmed it.
 */
static __always_inline void claim(__u64 id, __u32 seq)
{
	struct tap_walk *w = walk_at(id, 0);

	if (!w)
		return;
	if (w->user) {
		w = walk_at(id, 1);
		if (!w || w->user)
			return;
	}
	FIELD(w, next) = 0;
	FIELD(w, hole) = 0;
	FIELD(w, early) = 0;
	FIELD(w, held[0]) = 0;
	FIELD(w, model) = 0;
	FIELD(w, last) = 0;
	FIELD(w, id) = id;
	FIELD(w, next) = cursor(seq, 0, 0);
}
