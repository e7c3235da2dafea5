/* SPDX-License-Identifier: Apache-2.0 */
#include "timing.h"

#include <errno.h>
#include <math.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000UL
#define NSEC_PER_USEC 1000UL
#define LONGEST_NS (60UL * 1000 * NSEC_PER_USEC)
/* A sleep costs a context switch and wakes late: shorter ones are spun. */
#define SPIN_NS (40 * NSEC_PER_USEC)

/* SplitMix64 (Steele, Lea, Flood 2014): every seed gives a stream of its own. */
static u64 mix(u64 value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
	value = (value ^ value >> 27) * 0x94d049bb133111eb;
	return value ^ value >> 31;
}

static u64 dice_roll(struct dice *dice)
{
	return mix(dice->state += 0x9e3779b97f4a7c15);
}

static struct dice dice_for(u64 seed, u64 kind, u64 index)
{
	return (struct dice){ mix(mix(mix(seed + 1) ^ (kind + 1)) ^ (index + 1)) };
}

static unsigned int dice_pick(struct dice *dice, unsigned int sides)
{
	return (dice_roll(dice) >> 32) * sides >> 32;
}

static bool dice_one_in(struct dice *dice, unsigned int sides)
{
	return !dice_pick(dice, sides);
}

static double dice_uniform(struct dice *dice)
{
	return ((dice_roll(dice) >> 12) + 0.5) / (1UL << 52);
}

static double dice_normal(struct dice *dice) /* Box and Muller */
{
	double radius = sqrt(-2 * log(dice_uniform(dice)));

	return radius * cos(2 * M_PI * dice_uniform(dice));
}

static u64 now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

/* Median, spread of the logarithm, and what each 2 MiB add. */
static const struct { double median_us, sigma, us_per_2mib; } durations[] = {
	[WORK_COLLECT] = { 45, 0.9, 25 }, [WORK_ALLOCATE] = { 20, 1.2, 5 }, [WORK_COPY] = { 70, 0.7, 160 },
	[WORK_COMMIT] = { 15, 0.6, 6 },	  [WORK_REMAP] = { 25, 0.8, 15 },   [WORK_WALK] = { 12, 0.8, 4 },
	[WORK_FAULT] = { 30, 1.1, 0 },	  [WORK_LOCK] = { 10, 1.0, 0 },
};

static u64 duration_of(enum work what, unsigned long bytes)
{
	double base = durations[what].median_us + durations[what].us_per_2mib * bytes / HPAGE_PMD_SIZE;
	double ns = NSEC_PER_USEC * base * exp(durations[what].sigma * dice_normal(&pace->dice));

	return ns < LONGEST_NS ? ns : LONGEST_NS;
}

static void work(enum work what, unsigned long bytes)
{
	if (!pace || pace->late)
		return;

	u64 end = now_ns() + duration_of(what, bytes);

	if (end - now_ns() > SPIN_NS) {
		struct timespec until = { end / NSEC_PER_SEC, end % NSEC_PER_SEC };

		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
			;
	}
	while (now_ns() < end)
		;
}
