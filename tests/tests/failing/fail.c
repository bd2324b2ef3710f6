/*
 * A process whose accepts fail when it is told so, and which counts them itself.
 *
 * usage: fail NAME
 *
 * Writes its pid, the port that it listens on and its limit of descriptors, then one number for
 * each order that it reads: how many accepts failed. Orders are `emfile COUNT`, `badf COUNT` and
 * `spin MILLISECONDS`. It ends with its input, and after a minute in any case.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Fails that often, or says by -1 that something else happened. */
static long fail(int fd, int wanted, long count)
{
	for (long done = 0; done < count; done++)
		if (accept4(fd, NULL, NULL, 0) >= 0 || errno != wanted)
			return -1;
	return count;
}

/* The same until that much time has passed. */
static long spin(int fd, long time)
{
	long end = milliseconds() + time, count = 0;

	/* Looking at the clock costs more than a failure. */
	for (; milliseconds() < end; count += 64)
		if (fail(fd, EMFILE, 64) < 0)
			return -1;
	return count;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t size = sizeof address;
	struct rlimit limit;
	char order[16];
	int listener, client, next;
	long number;

	alarm(60);
	if (argc != 2 || prctl(PR_SET_NAME, argv[1]))
		return 2;
	listener = socket(AF_INET, SOCK_STREAM, 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0 || client < 0 ||
	    bind(listener, (struct sockaddr *)&address, sizeof address) ||
	    listen(listener, 8) ||
	    getsockname(listener, (struct sockaddr *)&address, &size) ||
	    connect(client, (struct sockaddr *)&address, sizeof address))
		return 1;

	/* The lowest free number is the limit: there is none below it. */
	next = dup(0);
	if (next < 0 || close(next) || getrlimit(RLIMIT_NOFILE, &limit))
		return 1;
	limit.rlim_cur = (rlim_t)next;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		return 1;
	printf("%d %d %d\n", getpid(), ntohs(address.sin_port), next);
	fflush(stdout);

	while (scanf("%15s %ld", order, &number) == 2) {
		long failed = -1;

		if (!strcmp(order, "emfile"))
			failed = fail(listener, EMFILE, number);
		else if (!strcmp(order, "badf"))
			failed = fail(-1, EBADF, number);
		else if (!strcmp(order, "spin"))
			failed = spin(listener, number);
		if (failed < 0)
			return 1;
		printf("%ld\n", failed);
		fflush(stdout);
	}
	return 0;
}
