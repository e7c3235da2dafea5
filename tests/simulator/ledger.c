/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table of rows a thread; merged, sorted and printed as JSON at the end. */
#include "ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct row {
	struct event key;
	long *figures; /* the sums, or NULL */
	u64 count, inner_ns, outer_ns;
};

struct ledger {
	struct row *rows;
	size_t used, size; /* size is a power of two */
};

static const char *const field_names[NR_FIELDS] = {
	[FUNCTION] = "function",
	[CLASS] = "class",
	[TRIGGER] = "trigger",
	[CURRENT] = "current",
	[OWNER] = "owner",
	[DRIVER] = "driver",
	[OPS] = "ops",
	[CALLER] = "caller",
	[CALLER_DRIVER] = "caller_driver",
	[COMM] = "comm",
	[OUTCOME] = "outcome",
	[COLLECTED_FROM] = "collected_from",
	[SOURCE] = "source",
	[DESTINATION] = "destination",
	[DEVICE] = "device",
	[INTENT] = "intent",
	[CAUSE] = "cause",
	[EVENT] = "event",
	[ORDER] = "order",
	[INSIDE] = "inside",
	[ERRNO] = "errno",
	[RESULT] = "result",
};

static const char *const figure_names[NR_FIGURES] = {
	[COLLECTED] = "collected",
	[HOLES] = "holes",
	[NOT_SELECTED] = "not_selected",
	[BUSY] = "busy",
	[NO_DESTINATION] = "no_destination",
	[UNFILLED] = "unfilled",
	[COMMIT_FAILED] = "commit_failed",
	[ZERO_FILLED] = "zero_filled",
	[NOT_READ] = "not_read",
	[HOST_TO_HOST] = "host_to_host",
	[HOST_TO_DEVICE] = "host_to_device",
	[DEVICE_TO_HOST] = "device_to_host",
	[DEVICE_TO_DEVICE] = "device_to_device",
	[HUGE_HOST_TO_HOST] = "huge_host_to_host",
	[HUGE_HOST_TO_DEVICE] = "huge_host_to_device",
	[HUGE_DEVICE_TO_HOST] = "huge_device_to_host",
	[HUGE_DEVICE_TO_DEVICE] = "huge_device_to_device",
	[ABORTED] = "aborted",
	[PARTIAL] = "partial",
	[HUGE] = "huge",
};

/* In the order of the JSON. */
static const char *const kind_names[NR_KINDS] = {
	[MIGRATION] = "migrations",
	[MIGRATION_MOVE] = "migration_moves",
	[RETURN] = "returns",
	[DEVICE_RANGE] = "device_ranges",
	[DEVICE_MOVE] = "device_moves",
	[RANGE_FAULT] = "range_faults",
	[RANGE_FAULT_ATTEMPT] = "range_fault_attempts",
	[EXCLUSIVE] = "device_exclusives",
	[RESTORE] = "device_exclusive_restores",
	[NOTIFIER_INSERT] = "notifier_inserts",
	[NOTIFIER_REMOVE] = "notifier_removes",
	[HUGE_FAULT] = "huge_faults",
	[DMA_MAP] = "dma_maps",
	[DMA_UNMAP] = "dma_unmaps",
	[INVALIDATION] = "invalidations",
	[MIGRATION_PTE] = "migration_ptes",
	[MIGRATION_PMD] = "migration_pmds",
	[MIGRATION_TIME] = "migrations",
	[RETURN_TIME] = "returns",
	[RANGE_FAULT_TIME] = "range_faults",
};

/* Every errno that a kernel function of ours returns (facts: mm/hmm.c, mm/rmap.c and so on). */
static const struct { int number; const char *name; } errors[] = {
	{ EPERM, "EPERM" },   { EINTR, "EINTR" },   { ENOMEM, "ENOMEM" },	  { EFAULT, "EFAULT" },
	{ EBUSY, "EBUSY" },   { EINVAL, "EINVAL" }, { EOVERFLOW, "EOVERFLOW" }, { EOPNOTSUPP, "EOPNOTSUPP" },
};

static const char *error_name(int result)
{
	if (!result)
		return "";
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (errors[i].number == -result)
			return errors[i].name;
	fprintf(stderr, "hmm-simulator: no name for the result %d\n", result);
	abort();
}

static struct ledger *ledger_open(void)
{
	struct ledger *new = calloc(1, sizeof(*new));

	new->size = 1 << 12;
	new->rows = calloc(new->size, sizeof(*new->rows));
	return new;
}

static void ledger_close(struct ledger *old)
{
	for (size_t i = 0; i < old->size; i++)
		free(old->rows[i].figures);
	free(old->rows);
	free(old);
}

/* Of the strings' addresses: one string may have two rows, which printing adds up again. */
static u64 hash_of(const struct event *event)
{
	u64 hash = (u64)event->size * 0x9e3779b97f4a7c15 + event->kind;

	for (int i = 0; i < NR_FIELDS; i++)
		hash = (hash ^ (uintptr_t)event->field[i]) * 0xff51afd7ed558ccd;
	return hash ^ hash >> 32;
}

static bool same_key(const struct event *a, const struct event *b)
{
	return a->kind == b->kind && a->sized == b->sized && a->size == b->size &&
	       !memcmp(a->field, b->field, sizeof(a->field));
}

static struct row *row_of(struct ledger *in, const struct event *event)
{
	size_t at = hash_of(event) & (in->size - 1);

	while (in->rows[at].count && !same_key(&in->rows[at].key, event))
		at = (at + 1) & (in->size - 1);
	return &in->rows[at];
}

static void grow(struct ledger *full)
{
	struct ledger bigger = { calloc(2 * full->size, sizeof(*full->rows)), full->used, 2 * full->size };

	for (size_t i = 0; i < full->size; i++)
		if (full->rows[i].count)
			*row_of(&bigger, &full->rows[i].key) = full->rows[i];
	free(full->rows);
	*full = bigger;
}

static void add_figures(struct row *row, const long *figures)
{
	if (!figures)
		return;
	if (!row->figures)
		row->figures = calloc(NR_FIGURES, sizeof(*row->figures));
	for (int i = 0; i < NR_FIGURES; i++)
		row->figures[i] += figures[i];
}

/* Adds `count` events like `event`, with their sums. */
static void add_events(struct ledger *to, const struct event *event, const long *figures, u64 count, u64 inner_ns,
		       u64 outer_ns)
{
	struct row *row = row_of(to, event);

	if (!row->count) {
		row->key = *event;
		row->key.figures = NULL;
		to->used++;
	}
	add_figures(row, figures);
	row->count += count;
	row->inner_ns += inner_ns;
	row->outer_ns += outer_ns;
	if (2 * to->used > to->size)
		grow(to);
}

static void book(const struct event *event)
{
	const char *in = event->field[INSIDE];

	if (!in || !*in)
		issued[event->kind]++;
	if (ledger)
		add_events(ledger, event, event->figures, 1, event->inner_ns, event->outer_ns);
}

static void ledger_merge(struct ledger *into, struct ledger *from)
{
	for (size_t i = 0; i < from->size; i++) {
		const struct row *row = &from->rows[i];

		if (row->count)
			add_events(into, &row->key, row->figures, row->count, row->inner_ns, row->outer_ns);
	}
	ledger_close(from);
}

static int compare_attributes(const struct row *a, const struct row *b)
{
	if (a->key.kind != b->key.kind)
		return a->key.kind < b->key.kind ? -1 : 1;
	for (int i = 0; i < NR_FIELDS; i++) {
		const char *x = a->key.field[i], *y = b->key.field[i];
		int order = x && y ? strcmp(x, y) : (!x) - (!y);

		if (order)
			return order;
	}
	return 0;
}

static int compare_rows(const void *left, const void *right)
{
	const struct row *a = left, *b = right;
	int order = compare_attributes(a, b);

	return order ? order : (a->key.size > b->key.size) - (a->key.size < b->key.size);
}

/* Packs the rows to the front and sorts them; the ledger takes no events after that. */
static void sort(struct ledger *books)
{
	size_t packed = 0;

	for (size_t i = 0; i < books->size; i++)
		if (books->rows[i].count) {
			struct row row = books->rows[i];

			books->rows[i] = (struct row){};
			books->rows[packed++] = row;
		}
	qsort(books->rows, packed, sizeof(*books->rows), compare_rows);
}

/* A comm is bytes: each becomes the code point of its value, so that latin-1 gives them back. */
static void print_string(FILE *out, const char *string)
{
	putc('"', out);
	for (; *string; string++) {
		unsigned char byte = *string;

		if (byte < ' ' || byte >= 0x7f)
			fprintf(out, "\\u%04x", byte);
		else if (byte == '"' || byte == '\\')
			fprintf(out, "\\%c", byte);
		else
			putc(byte, out);
	}
	putc('"', out);
}

static void print_fields(FILE *out, const struct event *event)
{
	for (int i = 0; i < NR_FIELDS; i++) {
		if (!event->field[i])
			continue;
		fprintf(out, "\"%s\":", field_names[i]);
		print_string(out, event->field[i]);
		putc(',', out);
	}
}

/* `"bytes":..,"sizes":[[size,count],..],`, then the rest of the row. */
static void print_sizes(FILE *out, const struct row *row, const struct row *end)
{
	long bytes = 0;

	for (const struct row *i = row; i < end; i++)
		bytes += i->key.size * (long)i->count;
	fprintf(out, "\"bytes\":%ld,\"sizes\":[", bytes);
	for (const struct row *i = row; i < end;) {
		long size = i->key.size;
		u64 count = 0;

		for (; i < end && i->key.size == size; i++)
			count += i->count;
		fprintf(out, "[%ld,%lu]%s", size, count, i < end ? "," : "");
	}
	fputs("],", out);
}

/* Those that are not 0. */
static void print_figures(FILE *out, const struct row *row, const struct row *end)
{
	for (int i = 0; i < NR_FIGURES; i++) {
		long sum = 0;

		for (const struct row *each = row; each < end; each++)
			sum += each->figures ? each->figures[i] : 0;
		if (sum)
			fprintf(out, "\"%s\":%ld,", figure_names[i], sum);
	}
}

/* Rows from `row` to `end` differ at most in their size. */
static void print_row(FILE *out, const struct row *row, const struct row *end)
{
	u64 count = 0, inner = 0, outer = 0;

	for (const struct row *i = row; i < end; i++) {
		count += i->count;
		inner += i->inner_ns;
		outer += i->outer_ns;
	}
	putc('{', out);
	print_fields(out, &row->key);
	if (row->key.sized)
		print_sizes(out, row, end);
	print_figures(out, row, end);
	if (inner)
		fprintf(out, "\"inner_ns\":%lu,", inner);
	if (outer)
		fprintf(out, "\"outer_ns\":%lu,", outer);
	fprintf(out, "\"count\":%lu}", count);
}

static void print_kinds(FILE *out, struct ledger *books, enum event_kind from, enum event_kind to)
{
	const struct row *row = books->rows, *end = row + books->used;

	for (enum event_kind kind = from; kind < to; kind++) {
		const char *separator = "\n";

		fprintf(out, "\"%s\":[", kind_names[kind]);
		while (row < end && row->key.kind < kind)
			row++;
		while (row < end && row->key.kind == kind) {
			const struct row *next = row + 1;

			while (next < end && !compare_attributes(row, next))
				next++;
			fputs(separator, out);
			separator = ",\n";
			print_row(out, row, next);
			row = next;
		}
		fprintf(out, "\n]%s\n", kind + 1 < to ? "," : "");
	}
}

static void ledger_print(FILE *out, struct ledger *books)
{
	sort(books);
	print_kinds(out, books, MIGRATION, MIGRATION_TIME);
}

static void ledger_print_times(FILE *out, struct ledger *books)
{
	print_kinds(out, books, MIGRATION_TIME, NR_KINDS);
}
