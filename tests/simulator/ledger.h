/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The books of what was issued: every event with its attributes, counted, for the JSON of exact
 * mode. Attributes are strings because that is what they are for: facts in the words of a driver.
 */
#ifndef SIMULATOR_LEDGER_H
#define SIMULATOR_LEDGER_H

#include <stdio.h>

#include "kernel.h"

enum event_kind {
	MIGRATION,
	MIGRATION_MOVE,
	RETURN,
	DEVICE_RANGE,
	DEVICE_MOVE,
	RANGE_FAULT,
	RANGE_FAULT_ATTEMPT,
	EXCLUSIVE,
	RESTORE,
	NOTIFIER_INSERT,
	NOTIFIER_REMOVE,
	HUGE_FAULT,
	DMA_MAP,
	DMA_UNMAP,
	INVALIDATION,
	MIGRATION_PTE,
	MIGRATION_PMD,
	MIGRATION_TIME,
	RETURN_TIME,
	RANGE_FAULT_TIME,
	NR_KINDS,
};

enum field {
	FUNCTION,
	CLASS,
	TRIGGER,
	CURRENT,
	OWNER,
	DRIVER,
	OPS,
	CALLER,
	CALLER_DRIVER,
	COMM,
	OUTCOME,
	COLLECTED_FROM,
	SOURCE,
	DESTINATION,
	DEVICE,
	INTENT,
	CAUSE,
	EVENT,
	ORDER,
	INSIDE,
	ERRNO,
	RESULT,
	NR_FIELDS,
};

/* What is summed up over a row's events. */
enum figure {
	COLLECTED,
	HOLES,
	NOT_SELECTED,
	BUSY,
	NO_DESTINATION,
	UNFILLED,
	COMMIT_FAILED,
	ZERO_FILLED,
	NOT_READ,
	HOST_TO_HOST, /* in the order of enum direction, and so the next four */
	HOST_TO_DEVICE,
	DEVICE_TO_HOST,
	DEVICE_TO_DEVICE,
	HUGE_HOST_TO_HOST,
	HUGE_HOST_TO_DEVICE,
	HUGE_DEVICE_TO_HOST,
	HUGE_DEVICE_TO_DEVICE,
	ABORTED,
	PARTIAL,
	HUGE,
	NR_FIGURES,
};

struct event {
	enum event_kind kind;
	const char *field[NR_FIELDS]; /* those of the kind; the others stay NULL */
	bool sized;		      /* the event has a size, in bytes: see SIZE() */
	long size;
	const long *figures;	      /* NR_FIGURES of them, where the kind has any; not a part of the key */
	u64 inner_ns, outer_ns;	      /* of the *_TIME kinds */
};

#define SIZE(bytes) .sized = true, .size = (long)(bytes)

struct ledger;

/* The ledger of this thread; NULL where nobody asks (run mode), then events are only counted. */
static __thread struct ledger *ledger;
/* Events so far, by kind; in run mode, too. PTEs and invalidations only from outside HMM calls. */
static __thread unsigned long issued[NR_KINDS];

static struct ledger *ledger_open(void);
static void book(const struct event *event);
/* Moves all rows of `from` into `into`, and frees `from`. */
static void ledger_merge(struct ledger *into, struct ledger *from);
static void ledger_print(FILE *out, struct ledger *ledger);
static void ledger_print_times(FILE *out, struct ledger *ledger);
static void ledger_close(struct ledger *ledger);

#define BOOK(event_kind, ...) book(&(struct event){ .kind = (event_kind), __VA_ARGS__ })

/* "EBUSY" of -EBUSY, "" of 0. */
static const char *error_name(int result);

#endif
