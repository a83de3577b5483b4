/* Leads a process's TCP connections through the relay of a paced network: paced.py has it preloaded.

   listen() tells the relay to which host a port belongs. connect() asks the relay for the way to a
   port, and connects to the relay in its place. All else of a socket is the kernel's, as ever.

   OARLOCK_PACED is "<host> <port of the relay> <path of its control socket>". */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DIRECT = -1 }; /* the relay's answer where a port is on the same host */

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six; /* has family and port where IPv4 has them */
};

static int host = -1; /* of the network; -1 where nothing is paced */
static in_port_t relay;
static struct sockaddr_un control = {.sun_family = AF_UNIX};
static int (*real_connect)(int, const struct sockaddr *, socklen_t);
static int (*real_listen)(int, int);

__attribute__((constructor)) static void begin(void) {
    const char *given = getenv("OARLOCK_PACED");
    unsigned short port;
    real_connect = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    real_listen = (int (*)(int, int))dlsym(RTLD_NEXT, "listen");
    if (given == NULL) return;
    if (sscanf(given, "%d %hu %107[^\n]", &host, &port, control.sun_path) != 3) {
        fprintf(stderr, "OARLOCK_PACED=%s: a host, a port and a path are wanted\n", given);
        _exit(127);
    }
    relay = htons(port);
}

/* The relay's answer: 0, DIRECT, or an error number. */
static int ask(const char *form, ...) {
    char words[128], answer[16] = "";
    va_list values;
    va_start(values, form);
    int length = vsnprintf(words, sizeof words, form, values), found = ENETDOWN;
    va_end(values);
    int line = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (line < 0) return errno;
    if (real_connect(line, (struct sockaddr *)&control, sizeof control) == 0 &&
        send(line, words, length, MSG_NOSIGNAL) == length &&
        recv(line, answer, sizeof answer - 1, 0) > 0)
        found = atoi(answer);
    close(line);
    return found;
}

static int is_tcp(int fd) {
    int domain = 0, type = 0, saved = errno;
    socklen_t size = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size)) domain = 0;
    size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size)) type = 0;
    errno = saved;
    return (domain == AF_INET || domain == AF_INET6) && type == SOCK_STREAM;
}

static int port_of(int fd) {
    union address own;
    socklen_t size = sizeof own;
    return getsockname(fd, &own.any, &size) ? -1 : ntohs(own.four.sin_port);
}

/* A port of 127.0.0.1, for a socket of either family. */
static socklen_t loopback(int family, in_port_t port, union address *found) {
    memset(found, 0, sizeof *found);
    found->any.sa_family = family;
    found->four.sin_port = port;
    if (family == AF_INET) {
        found->four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return sizeof found->four;
    }
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &found->six.sin6_addr);
    return sizeof found->six;
}

static int failed(int error) {
    errno = error;
    return -1;
}

int listen(int fd, int backlog) {
    if (host < 0 || !is_tcp(fd)) return real_listen(fd, backlog);
    int port = port_of(fd), said;
    if (port == 0) return failed(EDESTADDRREQ); /* what is not bound has no port to tell */
    if ((said = ask("listen %d %d", host, port)) > 0) return failed(said);
    return real_listen(fd, backlog);
}

int connect(int fd, const struct sockaddr *to, socklen_t length) {
    const union address *wanted = (const union address *)to;
    union address other;
    socklen_t size = sizeof other;
    char address[INET_ADDRSTRLEN];
    if (host < 0 || to->sa_family == AF_UNSPEC || !is_tcp(fd) ||
        getpeername(fd, &other.any, &size) == 0) /* is connected already */
        return real_connect(fd, to, length);
    if (to->sa_family == AF_INET)
        inet_ntop(AF_INET, &wanted->four.sin_addr, address, sizeof address);
    else if (to->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&wanted->six.sin6_addr))
        inet_ntop(AF_INET, wanted->six.sin6_addr.s6_addr + 12, address, sizeof address);
    else
        return failed(ENETUNREACH); /* hosts have no IPv6 */
    if (port_of(fd) == 0) {
        size = loopback(to->sa_family, 0, &other);
        if (bind(fd, &other.any, size)) return -1;
    }
    int port = ntohs(wanted->four.sin_port);
    int said = ask("connect %d %d %s %d", host, port_of(fd), address, port);
    if (said > 0) return failed(said);
    if (said == DIRECT) return real_connect(fd, to, length);
    size = loopback(to->sa_family, relay, &other);
    return real_connect(fd, &other.any, size);
}
