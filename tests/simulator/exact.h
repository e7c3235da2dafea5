/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIMULATOR_EXACT_H
#define SIMULATOR_EXACT_H

#include <stdbool.h>

/* Each migration has an address of its own, and address spaces end. */
#define MOST_EVENTS 900000
/* A name has seven digits. */
#define MOST_PROCESSES 4999999

struct exact_options {
	unsigned int threads;
	unsigned long events; /* of each main kind */
	unsigned long seed;
	bool wait_for_stdin;
	unsigned long processes, first; /* of churn: how many, and the number of the first one */
};

/* Issues the events and prints the books to stdout. */
static void exact(const struct exact_options *options);
/* The same for processes that each do a few things and are gone. */
static void churn_processes(const struct exact_options *options);

#endif
