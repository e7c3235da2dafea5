/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgroups.h"
#include "exact.h"
#include "run.h"

static const char usage[] =
	"usage: hmm-simulator run [--rate EVENTS_PER_SECOND] [--threads N] [--scenario NAME]...\n"
	"                         [--seconds S] [--seed N] [--cgroups FILE]\n"
	"       hmm-simulator exact [--threads N] [--events N] [--seed N] [--cgroups FILE]\n"
	"                         [--wait-for-stdin]\n"
	"       hmm-simulator churn [--processes N] [--first N] [--threads N] [--seed N] [--cgroups FILE]\n"
	"       hmm-simulator list\n"
	"       hmm-simulator iomem\n";

static __attribute__((noreturn, format(printf, 1, 2))) void refuse(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("hmm-simulator: ", stderr);
	vfprintf(stderr, format, arguments);
	fputs(" (see --help)\n", stderr);
	va_end(arguments);
	exit(2);
}

static double number(const char *option, const char *text, double least, double most)
{
	char *end;
	double value = strtod(text, &end);

	if (!*text || *end || !(value >= least && value <= most))
		refuse("--%s takes a number from %g to %g, not '%s'", option, least, most, text);
	return value;
}

static unsigned long whole_number(const char *option, const char *text, unsigned long least, unsigned long most)
{
	double value = number(option, text, least, most);

	if (value != floor(value))
		refuse("--%s takes a whole number, not '%s'", option, text);
	return value;
}

static void place(const char *path)
{
	if (!read_cgroups(path))
		refuse("--cgroups takes a file with lines of a comm and numbers of cgroups, not '%s'", path);
}

static void choose(struct run_options *options, const char *name)
{
	for (enum scenario_id i = 0; i < NR_SCENARIOS; i++)
		if (!strcmp(scenarios[i].name, name)) {
			options->chosen[i] = options->any_chosen = true;
			return;
		}
	refuse("there is no scenario '%s'", name);
}

enum { RATE, THREADS, SCENARIO, SECONDS, EVENTS, SEED, WAIT, CGROUPS, PROCESSES, FIRST };

/* getopt's own messages would be a second line. */
static int next_option(int argc, char **argv, const struct option *options)
{
	int at = optind, option;

	opterr = 0;
	option = getopt_long(argc, argv, "", options, NULL);
	if (option == '?')
		refuse("bad option '%s'", argv[at]);
	if (option == -1 && optind < argc)
		refuse("what is '%s'?", argv[optind]);
	return option;
}

static void run_command(int argc, char **argv)
{
	static const struct option known[] = {
		{ "rate", required_argument, NULL, RATE },     { "threads", required_argument, NULL, THREADS },
		{ "scenario", required_argument, NULL, SCENARIO }, { "seconds", required_argument, NULL, SECONDS },
		{ "seed", required_argument, NULL, SEED },     { "cgroups", required_argument, NULL, CGROUPS }, {},
	};
	struct run_options options = { .threads = 8, .rate = 250, .seed = 1 };
	int option;

	while ((option = next_option(argc, argv, known)) != -1) {
		switch (option) {
		case RATE: options.rate = number("rate", optarg, 0.01, 1e6); break;
		case THREADS: options.threads = whole_number("threads", optarg, 1, 256); break;
		case SCENARIO: choose(&options, optarg); break;
		case SECONDS: options.seconds = number("seconds", optarg, 0.001, 1e9); break;
		case SEED: options.seed = whole_number("seed", optarg, 0, 1UL << 53); break;
		case CGROUPS: place(optarg); break;
		}
	}
	run(&options);
}

static void exact_command(int argc, char **argv)
{
	static const struct option known[] = {
		{ "threads", required_argument, NULL, THREADS }, { "events", required_argument, NULL, EVENTS },
		{ "seed", required_argument, NULL, SEED },	 { "wait-for-stdin", no_argument, NULL, WAIT },
		{ "cgroups", required_argument, NULL, CGROUPS }, {},
	};
	struct exact_options options = { .threads = 4, .events = 100000, .seed = 1 };
	int option;

	while ((option = next_option(argc, argv, known)) != -1) {
		switch (option) {
		case THREADS: options.threads = whole_number("threads", optarg, 1, 256); break;
		case EVENTS: options.events = whole_number("events", optarg, 1, MOST_EVENTS); break;
		case SEED: options.seed = whole_number("seed", optarg, 0, 1UL << 53); break;
		case WAIT: options.wait_for_stdin = true; break;
		case CGROUPS: place(optarg); break;
		}
	}
	exact(&options);
}

static void churn_command(int argc, char **argv)
{
	static const struct option known[] = {
		{ "processes", required_argument, NULL, PROCESSES }, { "first", required_argument, NULL, FIRST },
		{ "threads", required_argument, NULL, THREADS },     { "seed", required_argument, NULL, SEED },
		{ "cgroups", required_argument, NULL, CGROUPS },     {},
	};
	struct exact_options options = { .threads = 4, .processes = 100000, .seed = 1 };
	int option;

	while ((option = next_option(argc, argv, known)) != -1) {
		switch (option) {
		case PROCESSES: options.processes = whole_number("processes", optarg, 1, MOST_PROCESSES); break;
		case FIRST: options.first = whole_number("first", optarg, 0, MOST_PROCESSES); break;
		case THREADS: options.threads = whole_number("threads", optarg, 1, 256); break;
		case SEED: options.seed = whole_number("seed", optarg, 0, 1UL << 53); break;
		case CGROUPS: place(optarg); break;
		}
	}
	churn_processes(&options);
}

static void list_command(int argc, char **argv)
{
	static const struct option known[] = { {} };

	next_option(argc, argv, known);
	for (enum scenario_id i = 0; i < NR_SCENARIOS; i++)
		printf("%-11s %s\n", scenarios[i].name, scenarios[i].about);
}

static void iomem_command(int argc, char **argv)
{
	static const struct option known[] = { {} };

	next_option(argc, argv, known);
	print_iomem();
}

static const struct { const char *name; void (*run)(int argc, char **argv); } commands[] = {
	{ "run", run_command }, { "exact", exact_command }, { "churn", churn_command },
	{ "list", list_command }, { "iomem", iomem_command },
};

int main(int argc, char **argv)
{
	if (argc < 2)
		refuse("no command");
	if (!strcmp(argv[1], "--help"))
		return fputs(usage, stdout) < 0;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name)) {
			probe_drivers();
			commands[i].run(argc - 1, argv + 1);
			return fflush(stdout) || ferror(stdout);
		}
	refuse("there is no command '%s'", argv[1]);
}
