/* A server that asks again at once when accept fails, as level-triggered event loops do. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct pollfd listener = { .events = POLLIN };

	if (argc != 2)
		return 2;
	address.sin_port = htons((unsigned short)atoi(argv[1]));
	listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (listener.fd < 0 ||
	    bind(listener.fd, (struct sockaddr *)&address, sizeof address) ||
	    listen(listener.fd, 128))
		return 1;
	while (poll(&listener, 1, -1) > 0)
		if (accept(listener.fd, NULL, NULL) < 0 && errno != EMFILE && errno != EAGAIN)
			return 1;
	return 1;
}
