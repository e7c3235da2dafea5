/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which 2 MiB regions of an address space went to a device, and when: for the books of what a CPU
 * fault brings back. Only a thread that has begun to watch takes down arrivals; what others send
 * to a device never comes back by a CPU fault, so that threads need not know of each other.
 */
#include "ledger.h"
#include "timing.h"

#define REGION_SHIFT 21
/* As many as the arrays of a migration reach into. */
#define TOUCHED_REGIONS 513
#define RESIDENT_REGIONS 64

/* One region in the migration at hand, in bytes. */
struct touched { unsigned long region, sent, returned; };

static __thread struct {
	unsigned int used;
	struct touched region[TOUCHED_REGIONS];
} touched;

struct resident {
	unsigned long region;
	u64 since_earliest, since_latest;
	bool returned;
};

/* Of one process: that of the story being told. */
static __thread struct {
	bool watched;
	unsigned int used;
	struct resident region[RESIDENT_REGIONS];
} residents;

/* Pages have moved, or an empty place was filled, at `addr`; addresses ascend within a migration. */
static void touch_region(unsigned long addr, unsigned long bytes, bool from_device, bool to_device)
{
	unsigned long region = addr >> REGION_SHIFT;
	struct touched *last;

	if (!touched.used || touched.region[touched.used - 1].region != region)
		touched.region[touched.used++] = (struct touched){ region, 0, 0 };
	last = &touched.region[touched.used - 1];
	if (to_device)
		last->sent += bytes;
	else if (from_device)
		last->returned += bytes;
}

static struct resident *resident_of(unsigned long region)
{
	for (unsigned int i = 0; i < residents.used; i++)
		if (residents.region[i].region == region)
			return &residents.region[i];
	return NULL;
}

static void watch_residents(bool watch)
{
	residents.watched = watch;
	residents.used = 0;
}

/* The migration at hand has sent its regions to a device between these two moments. */
static void regions_arrived(u64 earliest, u64 latest)
{
	for (unsigned int i = 0; i < touched.used && residents.watched; i++) {
		unsigned long region = touched.region[i].region;
		struct resident *resident = resident_of(region);

		if (!touched.region[i].sent)
			continue;
		if (!resident)
			resident = &residents.region[residents.used++];
		*resident = (struct resident){ region, earliest, latest, false };
	}
}

/* The migration at hand, a CPU fault's, has brought its regions back between these two moments. */
static void regions_returned(const char *owner, const char *device, const char *comm, u64 earliest, u64 latest)
{
	for (unsigned int i = 0; i < touched.used; i++) {
		struct resident *resident = resident_of(touched.region[i].region);
		bool first = resident && !resident->returned;

		if (!touched.region[i].returned)
			continue;
		BOOK(RETURN, .field[OWNER] = owner, .field[DEVICE] = device, .field[COMM] = comm,
		     .field[RESULT] = !resident ? "unknown" : first ? "first" : "again",
		     SIZE(touched.region[i].returned));
		if (!first)
			continue;
		resident->returned = true;
		BOOK(RETURN_TIME, .field[DEVICE] = device, .inner_ns = earliest - resident->since_latest,
		     .outer_ns = latest - resident->since_earliest);
	}
}
