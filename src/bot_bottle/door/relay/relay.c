/* Carries a bottle's door out of a virtual machine: one program, of which one process runs on each side.
 *
 *   relay inside SOCKET   as the machine's root: holds the door's listeners and carries each connection to SOCKET
 *   relay outside N M     accepts on descriptor N and connects, in its own network namespace, to the address that was meant
 *
 * Each connection to the socket begins with eight bytes: a mark, what it is, port and address in network order. 'S' is a
 * stream to that address. 'C' is the line to the keeper, good once: outside passes it on over descriptor M, and over it the
 * keeper orders listeners. Either process ends when that line does. DNS over UDP is carried as a stream of one query, so that
 * there is one kind of connection only.
 *
 * What follows goes in pieces, each with its length in four bytes before it, since a socket that a machine mounts may lose
 * what is on its way when either side ends it, or half of it. END says that nothing more comes. When the other's END has come
 * and all before it has been handed on, outside says OVER, in place of its own END or after it. A connection that is closed
 * before was cut off, and so is what it carried. One that is over holds nothing any more: inside closes it or, since to make
 * one costs more than a short stream, keeps it for the next, which begins with eight bytes again.
 *
 * Needs nothing of its surroundings: no shell, no libc, no files. tools/make_relay.py builds it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 0xBB, HEAD = 8, BLOCK = 65536, PAIRS = 1536, LISTENERS = 128, IDLE = 8, QUERY = 4096, QUERIES = 256,
       ROOM = BLOCK + 2 * QUERY, SPARE = 16, SHORT = 8192, LENGTH = 4 };
enum { END = 0, OVER = 0xFFFFFFFF };
enum { STREAM = 1, DATAGRAM = 2 };
enum { DNS_SECONDS = 10, FILES = 2 * PAIRS + 2 * LISTENERS + IDLE };
enum role { INSIDE, OUTSIDE };
enum what { A_LISTENER, AN_END, THE_LINE, THE_KEEPER };

/* What epoll tells of: `what` comes first in every one of them. */
struct listener {
  enum what what;
  int fd, datagrams;
};

struct end {
  enum what what;
  int fd;
  uint32_t events;
  int ended;       /* nothing more comes from it */
  int told;        /* it was told that nothing more comes */
  char *waiting;   /* what it did not take yet */
  size_t from, to;
  struct pair *pair;
};

/* `near` is the socket's side, `far` the network's. */
struct pair {
  struct end near, far;
  unsigned char head[HEAD];
  size_t heard;    /* bytes of the header */
  unsigned char length[LENGTH];
  size_t measured; /* bytes of the length that comes */
  uint32_t left;   /* bytes of the piece that comes */
  int over;        /* outside said so */
  int connecting, open, dead, idle, is_query;
  time_t due;
  struct sockaddr_in asker;
  struct in_addr asked;
  unsigned char reply[QUERY + 2];
  size_t replied;
  struct pair *next;
  int used;
};

static enum role role;
static int polled = -1, most = PAIRS, paused, pairs, fresh, idles, spare, queries, passed;
static struct pair all[PAIRS + IDLE], *graves, *unused, *idle[IDLE];
static struct listener listeners[LISTENERS], line = {THE_LINE, -1, 0}, keeper = {THE_KEEPER, -1, 0};
static struct sockaddr_un place;
static char block[LENGTH + BLOCK + LENGTH], *rooms[SPARE];

static time_t now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec;
}

static int watch_as(int operation, int fd, uint32_t events, void *who) {
  struct epoll_event event = {.events = events, .data.ptr = who};
  return epoll_ctl(polled, operation, fd, &event);
}

static void watch(int fd, uint32_t events, void *who) { watch_as(EPOLL_CTL_ADD, fd, events, who); }
static void watch_again(int fd, uint32_t events, void *who) { watch_as(EPOLL_CTL_MOD, fd, events, who); }

static void pause_all(int yes) {
  if (paused == yes) return;
  paused = yes;
  if (role == OUTSIDE) watch_again(line.fd, yes ? 0 : EPOLLIN, &line);
  for (int i = 0; i < LISTENERS; i++)
    if (listeners[i].fd > 0 && !listeners[i].datagrams) watch_again(listeners[i].fd, yes ? 0 : EPOLLIN, &listeners[i]);
}

/* Nothing was accepted: there was nothing, or there is no room; then it waits until a connection has ended. */
static void not_accepted(void) {
  if (pairs && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) pause_all(1);
}

/* What waits: fresh memory is dear where a machine's pages are made by two kernels, so a little of it is kept */

static char *new_room(void) {
  if (spare) return rooms[--spare];
  void *made = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return made == MAP_FAILED ? NULL : made;
}

static void free_room(struct end *end) {
  if (end->waiting && spare < SPARE) rooms[spare++] = end->waiting;
  else if (end->waiting) munmap(end->waiting, ROOM);
  end->waiting = NULL;
  end->from = end->to = 0;
}

/* Pairs */

static void count_pair(int more) {
  pairs += more;
  if (pairs >= most) pause_all(1);
  else if (more <= 0) pause_all(0);
}

static struct pair *new_pair(void) {
  struct pair *made = unused;
  if (made) unused = made->next;
  else if (fresh < PAIRS + IDLE) made = &all[fresh++];
  else return NULL;
  memset(made, 0, sizeof *made);
  made->used = 1;
  made->near.what = made->far.what = AN_END;
  made->near.fd = made->far.fd = -1;
  made->near.pair = made->far.pair = made;
  count_pair(1);
  return made;
}

static void close_end(struct end *end, int reset) {
  if (end->fd >= 0) {
    if (reset) {
      struct linger now_or_never = {1, 0};
      setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &now_or_never, sizeof now_or_never);
    }
    close(end->fd);
  }
  end->fd = -1;
  end->events = 0; /* what this round still tells of it is of no use */
  free_room(end);
}

static void forget_stream(struct pair *pair) {
  pair->near.ended = pair->near.told = pair->far.ended = pair->far.told = 0;
  pair->over = pair->open = pair->idle = 0;
  pair->heard = pair->measured = 0;
}

static void forget_idle(struct pair *pair) {
  for (int i = 0; i < idles; i++)
    if (idle[i] == pair) { idle[i] = idle[--idles]; break; }
}

/* Events of this round may still name it, so it is used again only after them. */
static void end_pair(struct pair *pair, int reset) {
  if (pair->dead) return;
  pair->dead = 1;
  close_end(&pair->near, 0);
  close_end(&pair->far, reset);
  pair->next = graves;
  graves = pair;
  if (pair->is_query) queries--;
  if (pair->idle) forget_idle(pair); else count_pair(-1);
}

static struct end *other(struct end *end) { return end == &end->pair->near ? &end->pair->far : &end->pair->near; }

static void want(struct end *end) {
  if (end->fd < 0) return;
  struct end *to = other(end);
  uint32_t events = 0;
  int reads = end == &end->pair->near || ((end->pair->open || role == INSIDE) && !end->ended);
  if (reads && !(to->waiting && to->to > to->from)) events |= EPOLLIN;
  if (end->waiting || (end == &end->pair->far && end->pair->connecting)) events |= EPOLLOUT;
  if (events == end->events) return;
  /* Of one that nothing is wanted of, epoll would still tell that its other end has hung up, again and again. */
  int operation = !end->events ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
  if (!watch_as(operation, end->fd, events, end)) end->events = events;
}

static int send_off(struct end *end) {
  while (end->waiting && end->from < end->to) {
    ssize_t sent = send(end->fd, end->waiting + end->from, end->to - end->from, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    end->from += (size_t)sent;
  }
  free_room(end);
  return 0;
}

/* Gives `size` bytes to `end`; what it does not take at once waits, and nothing more is read for it meanwhile. */
static int give(struct end *end, const char *data, size_t size) {
  while (size && !end->waiting) {
    ssize_t sent = send(end->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return -1;
    if (sent < 0) break;
    data += sent;
    size -= (size_t)sent;
  }
  if (!size) return 0;
  if (!end->waiting && !(end->waiting = new_room())) return -1;
  if (size > ROOM - end->to) return -1;
  memcpy(end->waiting + end->to, data, size);
  end->to += size;
  return 0;
}

static void write_length(void *to, uint32_t length) {
  length = htonl(length);
  memcpy(to, &length, LENGTH);
}

/* Writes what says that nothing more goes to the socket. */
static void write_end(struct pair *pair, void *to) {
  pair->over = role == OUTSIDE && pair->near.ended && pair->far.told;
  write_length(to, pair->over ? OVER : END);
  pair->near.told = 1;
}

static int say_end(struct pair *pair) {
  char length[LENGTH];
  write_end(pair, length);
  return give(&pair->near, length, LENGTH);
}

/* What is over goes on with the next stream: outside by its next head, inside by the next client. */
static void begin_again(struct pair *pair) {
  if (role == OUTSIDE) {
    forget_stream(pair);
    count_pair(0); /* its other descriptor is free now: who was not accepted for want of one is tried again */
  } else if (idles == IDLE) end_pair(pair, 0);
  else {
    pair->idle = 1;
    idle[idles++] = pair;
    count_pair(-1);
  }
}

static void settle(struct pair *pair) {
  struct end *near = &pair->near, *far = &pair->far;
  if (near->ended && !far->told && !far->waiting && !pair->connecting) {
    far->told = 1;
    shutdown(far->fd, SHUT_WR);
  }
  int is_over = role == OUTSIDE && near->told && far->told && !pair->over;
  if (((far->ended && !near->told) || is_over) && say_end(pair)) { end_pair(pair, 1); return; }
  if (near->told && far->told) close_end(far, 0);
  if (pair->over && far->fd < 0) begin_again(pair);
  want(near);
  want(far);
}

/* Inside: from a client to the socket */

static int dial_socket(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&place, sizeof place)) {
    close(fd);
    return -1;
  }
  return fd;
}

/* One that has a way to the socket, if there is one to be had. */
static struct pair *idle_or_new(void) {
  struct pair *pair = idles ? idle[--idles] : new_pair();
  if (pair && pair->idle) {
    forget_stream(pair);
    count_pair(1);
  } else if (pair) pair->near.fd = dial_socket();
  return pair;
}

static void write_head(unsigned char *head, char what, uint16_t port, uint32_t address) {
  head[0] = MARK;
  head[1] = (unsigned char)what;
  memcpy(head + 2, &port, 2);
  memcpy(head + 4, &address, 4);
}

static void begin(struct pair *pair, uint16_t port, uint32_t address) {
  write_head(pair->head, 'S', port, address);
  if (give(&pair->near, (char *)pair->head, HEAD)) end_pair(pair, 1); else settle(pair);
}

static void take_client(struct listener *from) {
  if (paused) return;
  int client = accept4(from->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (client < 0) { not_accepted(); return; }
  struct sockaddr_in meant;
  socklen_t size = sizeof meant;
  struct pair *pair = getsockname(client, (struct sockaddr *)&meant, &size) ? NULL : idle_or_new();
  if (!pair) {
    struct end refused = {.fd = client};
    close_end(&refused, 1);
    return;
  }
  pair->far.fd = client;
  if (pair->near.fd < 0) end_pair(pair, 1); else begin(pair, meant.sin_port, meant.sin_addr.s_addr);
}

static void take_query(struct listener *from) {
  for (int i = 0; i < 64; i++) {
    struct sockaddr_in asker;
    char query[LENGTH + 2 + QUERY], ancillary[CMSG_SPACE(sizeof(struct in_pktinfo))];
    struct iovec part = {query + LENGTH + 2, QUERY};
    struct msghdr message = {.msg_name = &asker, .msg_namelen = sizeof asker, .msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = ancillary, .msg_controllen = sizeof ancillary};
    ssize_t size = recvmsg(from->fd, &message, MSG_DONTWAIT);
    if (size < 0) return;
    struct cmsghdr *told = CMSG_FIRSTHDR(&message);
    if ((message.msg_flags & MSG_TRUNC) || !size || !told || told->cmsg_type != IP_PKTINFO || queries >= QUERIES || paused) continue;
    struct pair *pair = idle_or_new();
    if (!pair) return;
    pair->is_query = 1;
    pair->replied = 0;
    queries++;
    pair->due = now() + DNS_SECONDS;
    pair->asker = asker;
    pair->asked = ((struct in_pktinfo *)CMSG_DATA(told))->ipi_addr;
    write_length(query, (uint32_t)size + 2);
    query[LENGTH] = (char)(size >> 8);
    query[LENGTH + 1] = (char)size;
    write_head(pair->head, 'S', htons(53), pair->asked.s_addr);
    if (pair->near.fd < 0 || give(&pair->near, (char *)pair->head, HEAD) || give(&pair->near, query, LENGTH + 2 + (size_t)size) ||
        say_end(pair)) {
      end_pair(pair, 0);
      continue;
    }
    want(&pair->near);
  }
}

static void answer_query(struct pair *pair, int fd) {
  char ancillary[CMSG_SPACE(sizeof(struct in_pktinfo))] = {0};
  struct iovec part = {pair->reply + 2, pair->replied - 2};
  struct msghdr message = {.msg_name = &pair->asker, .msg_namelen = sizeof pair->asker, .msg_iov = &part, .msg_iovlen = 1,
                           .msg_control = ancillary, .msg_controllen = sizeof ancillary};
  struct cmsghdr *from = CMSG_FIRSTHDR(&message);
  from->cmsg_level = IPPROTO_IP;
  from->cmsg_type = IP_PKTINFO;
  from->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
  ((struct in_pktinfo *)CMSG_DATA(from))->ipi_spec_dst = pair->asked;
  sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void hear_reply(struct pair *pair, const char *data, size_t size) {
  if (pair->replied + size > sizeof pair->reply) { end_pair(pair, 0); return; }
  memcpy(pair->reply + pair->replied, data, size);
  pair->replied += size;
  if (pair->replied < 2 || pair->replied != 2u + (size_t)(pair->reply[0] << 8 | pair->reply[1])) return;
  for (int i = 0; i < LISTENERS; i++)
    if (listeners[i].fd > 0 && listeners[i].datagrams) { answer_query(pair, listeners[i].fd); break; }
}

static void end_query(struct pair *pair) {
  pair->is_query = 0;
  queries--;
  begin_again(pair);
}

/* Outside: from the socket to the address that was meant */

static void pass_line(struct pair *pair) {
  char mark = 'C', ancillary[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec part = {&mark, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
  struct cmsghdr *carried = CMSG_FIRSTHDR(&message);
  carried->cmsg_level = SOL_SOCKET;
  carried->cmsg_type = SCM_RIGHTS;
  carried->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(carried), &pair->near.fd, sizeof(int));
  epoll_ctl(polled, EPOLL_CTL_DEL, pair->near.fd, NULL); /* what is open elsewhere is still told of after it was closed here */
  if (!passed++) sendmsg(keeper.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  end_pair(pair, 0);
}

static void connected(struct pair *pair, int error) {
  pair->connecting = 0;
  pair->open = !error;
  if (error) end_pair(pair, 1); else settle(pair);
}

static void dial(struct pair *pair) {
  struct sockaddr_in meant = {.sin_family = AF_INET};
  if (pair->head[0] != MARK || (pair->head[1] != 'S' && pair->head[1] != 'C')) { end_pair(pair, 0); return; }
  if (pair->head[1] == 'C') { pass_line(pair); return; }
  memcpy(&meant.sin_port, pair->head + 2, 2);
  memcpy(&meant.sin_addr, pair->head + 4, 4);
  pair->far.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (pair->far.fd < 0) { connected(pair, 1); return; }
  pair->connecting = 1;
  if (!connect(pair->far.fd, (struct sockaddr *)&meant, sizeof meant)) connected(pair, 0);
  else if (errno == EINPROGRESS && !connect(pair->far.fd, (struct sockaddr *)&meant, sizeof meant)) connected(pair, 0);
  else if (errno == EINPROGRESS || errno == EALREADY) want(&pair->far), want(&pair->near);
  else connected(pair, 1);
}

static void take_socket(void) {
  if (paused) return;
  int fd = accept4(line.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) { not_accepted(); return; }
  struct pair *pair = new_pair();
  if (!pair) { close(fd); return; }
  pair->near.fd = fd;
  want(&pair->near);
}

/* Both */

/* Outside, nothing beyond the header is taken before there is somewhere to send it. */
static void read_head(struct pair *pair) {
  ssize_t size = recv(pair->near.fd, pair->head + pair->heard, HEAD - pair->heard, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) { end_pair(pair, 1); return; }
  pair->heard += (size_t)size;
  if (pair->heard == HEAD) dial(pair);
}

/* A length has come. Gives -1 for what nobody says who keeps to it. */
static int hear_length(struct pair *pair) {
  uint32_t length;
  memcpy(&length, pair->length, LENGTH);
  length = ntohl(length);
  pair->measured = 0;
  pair->left = 0;
  if (length == OVER && role == INSIDE && pair->near.told && !pair->over) pair->over = pair->near.ended = 1;
  else if (pair->near.ended || length > BLOCK) return -1;
  else if (length == END) pair->near.ended = 1;
  else pair->left = length;
  return 0;
}

/* Pieces that came over the socket. Gives -1 when the pair is at its end. */
static int hear_pieces(struct pair *pair, const char *data, size_t size) {
  while (size) {
    size_t taken = 1;
    if (pair->left) {
      taken = size < pair->left ? size : pair->left;
      pair->left -= (uint32_t)taken;
      if (pair->is_query) hear_reply(pair, data, taken);
      else if (give(&pair->far, data, taken)) end_pair(pair, 1);
    } else {
      pair->length[pair->measured++] = (unsigned char)*data;
      if (pair->measured == LENGTH && hear_length(pair)) end_pair(pair, 1);
    }
    if (pair->dead) return -1;
    data += taken;
    size -= taken;
  }
  return 0;
}

static void read_near(struct pair *pair) {
  ssize_t size = recv(pair->near.fd, block, BLOCK, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0 || pair->idle) { end_pair(pair, 1); return; } /* of an idle one nothing is due */
  if (hear_pieces(pair, block, (size_t)size)) return;
  if (!pair->is_query) settle(pair);
  else if (pair->over) end_query(pair);
  else want(&pair->near);
}

static void read_far(struct pair *pair) {
  char *data = block + LENGTH;
  ssize_t more = recv(pair->far.fd, data, BLOCK, MSG_DONTWAIT), size = more;
  if (more > 0 && more < SHORT) { /* a short answer and its end go together */
    more = recv(pair->far.fd, data + size, (size_t)(BLOCK - size), MSG_DONTWAIT);
    if (more > 0) size += more;
  }
  if (more < 0 && errno != EAGAIN && errno != EINTR) { end_pair(pair, 1); return; }
  if (size < 0) return;
  size_t whole = 0;
  if (size) {
    write_length(block, (uint32_t)size);
    whole = LENGTH + (size_t)size;
  }
  if (!more) {
    pair->far.ended = 1;
    write_end(pair, block + whole);
    whole += LENGTH;
  }
  if (give(&pair->near, block, whole)) end_pair(pair, 1); else settle(pair);
}

static void serve_end(struct end *end, uint32_t events) {
  struct pair *pair = end->pair;
  if (pair->dead) return;
  if (end == &pair->far && pair->connecting && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    connected(pair, error);
    return;
  }
  if (end->waiting && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
    if (send_off(end)) { end_pair(pair, 1); return; }
    if (!pair->is_query) settle(pair); else want(end);
    if (pair->dead) return;
  }
  if (!(end->events & EPOLLIN && events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
  if (end == &pair->far) read_far(pair);
  else if (role == OUTSIDE && pair->heard < HEAD) read_head(pair);
  else read_near(pair);
}

/* Inside: what the keeper orders */

static int open_one(int kind, const struct sockaddr_in *at) {
  int yes = 1, fd = socket(AF_INET, (kind == DATAGRAM ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int failed = kind == DATAGRAM ? setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes)
                                : setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  failed = failed || bind(fd, (const struct sockaddr *)at, sizeof *at) || (kind == STREAM && listen(fd, 1024));
  if (!failed) return fd;
  failed = errno;
  close(fd);
  return -failed;
}

static struct listener *free_place(void) {
  for (int i = 0; i < LISTENERS; i++)
    if (listeners[i].fd <= 0) return &listeners[i];
  return NULL;
}

/* An order is a count and as many times kind, port, address: eight bytes each. All are opened or none. */
static int open_all(const unsigned char *wanted, int count) {
  struct listener *opened[LISTENERS];
  int done = 0, error = 0;
  for (; done < count && !error; done++) {
    const unsigned char *one = wanted + done * 8;
    struct sockaddr_in at = {.sin_family = AF_INET};
    memcpy(&at.sin_port, one + 2, 2);
    memcpy(&at.sin_addr, one + 4, 4);
    struct listener *at_place = free_place();
    int fd = at_place && (one[0] == STREAM || one[0] == DATAGRAM) ? open_one(one[0], &at) : -EINVAL;
    if (fd < 0) { error = -fd; break; }
    *at_place = (struct listener){A_LISTENER, fd, one[0] == DATAGRAM};
    opened[done] = at_place;
  }
  for (int i = 0; i < done; i++) {
    if (error) {
      close(opened[i]->fd);
      opened[i]->fd = 0;
    } else watch(opened[i]->fd, paused && !opened[i]->datagrams ? 0 : EPOLLIN, opened[i]);
  }
  return error;
}

static void hear_order(void) {
  static unsigned char order[1 + LISTENERS * 8];
  static size_t heard;
  ssize_t size = recv(line.fd, order + heard, sizeof order - heard, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) _exit(0);
  heard += (size_t)size;
  size_t whole = 1 + order[0] * 8u;
  if (!order[0] || order[0] > LISTENERS || heard > whole) _exit(3);
  if (heard < whole) return;
  heard = 0;
  unsigned char answer = (unsigned char)open_all(order + 1, order[0]);
  if (send(line.fd, &answer, 1, MSG_NOSIGNAL) != 1) _exit(0);
}

/* The way there */

static void every_address_is_local(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq lo = {.ifr_name = "lo"};
  if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &lo)) _exit(10);
  lo.ifr_flags |= IFF_UP;
  if (ioctl(fd, SIOCSIFFLAGS, &lo)) _exit(11);
  if (ioctl(fd, SIOCGIFINDEX, &lo)) _exit(12);
  close(fd);
  struct {
    struct nlmsghdr head;
    struct rtmsg route;
    struct rtattr device;
    int index;
  } wanted = {{sizeof wanted, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, 0},
              {.rtm_family = AF_INET, .rtm_table = RT_TABLE_LOCAL, .rtm_protocol = RTPROT_STATIC,
               .rtm_scope = RT_SCOPE_HOST, .rtm_type = RTN_LOCAL},
              {RTA_LENGTH(sizeof(int)), RTA_OIF}, lo.ifr_ifindex};
  struct {
    struct nlmsghdr head;
    struct nlmsgerr error;
    char more[512];
  } answer = {0};
  fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0 || send(fd, &wanted, sizeof wanted, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0) _exit(13);
  if (answer.head.nlmsg_type != NLMSG_ERROR || (answer.error.error && answer.error.error != -EEXIST)) _exit(14);
  close(fd);
}

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#else
#define MACHINE AUDIT_ARCH_AARCH64
#endif
#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* From here on it moves bytes, and can do nothing else: no file, no program, no other process, no other kind of socket. */
static void confine(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALLOW(recvfrom), ALLOW(sendto), ALLOW(epoll_ctl), ALLOW(epoll_pwait), ALLOW(close), ALLOW(accept4), ALLOW(connect),
      ALLOW(shutdown), ALLOW(setsockopt), ALLOW(getsockopt), ALLOW(getsockname), ALLOW(recvmsg), ALLOW(sendmsg), ALLOW(bind),
      ALLOW(listen), ALLOW(clock_gettime), ALLOW(exit_group), ALLOW(munmap),
#ifdef SYS_epoll_wait
      ALLOW(epoll_wait),
#endif
      /* Memory that can't be executed, and sockets of the two families. */
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 4, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(15);
}

static void prepare(void) {
  struct rlimit files = {FILES, FILES}, none = {0, 0}, given;
  if (!getrlimit(RLIMIT_NOFILE, &given) && given.rlim_max < FILES) files.rlim_cur = files.rlim_max = given.rlim_max;
  int room = ((int)files.rlim_cur - 16 - (role == INSIDE ? LISTENERS + IDLE : 0)) / 2; /* a connection is two descriptors */
  most = room < 8 ? 8 : room < PAIRS ? room : PAIRS;
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  setrlimit(RLIMIT_NOFILE, &files);
  setrlimit(RLIMIT_CORE, &none);
  polled = epoll_create1(EPOLL_CLOEXEC);
  if (polled < 0) _exit(16);
}

static void begin_inside(const char *path) {
  unsigned char head[HEAD];
  place.sun_family = AF_UNIX;
  if (strlen(path) >= sizeof place.sun_path) _exit(17);
  strcpy(place.sun_path, path);
  int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (score >= 0) {
    ssize_t written = write(score, "-1000", 5); /* without it, it is no worse off than others */
    (void)written;
    close(score);
  }
  every_address_is_local();
  line.fd = dial_socket();
  write_head(head, 'C', 0, 0);
  if (line.fd < 0 || send(line.fd, head, HEAD, MSG_NOSIGNAL) != HEAD) _exit(18);
  watch(line.fd, EPOLLIN, &line);
}

static void begin_outside(const char *accepts, const char *passes) {
  line.fd = atoi(accepts);
  keeper.fd = atoi(passes);
  fcntl(line.fd, F_SETFL, O_NONBLOCK);
  watch(line.fd, EPOLLIN, &line);
  watch(keeper.fd, EPOLLIN, &keeper);
}

static void end_late_queries(void) {
  time_t at = now();
  for (int i = 0; i < fresh; i++)
    if (all[i].used && all[i].is_query && at >= all[i].due) end_pair(&all[i], 0);
}

static void serve(struct epoll_event *event) {
  switch (*(enum what *)event->data.ptr) {
    case A_LISTENER: {
      struct listener *listener = event->data.ptr;
      if (listener->datagrams) take_query(listener); else take_client(listener);
      break;
    }
    case AN_END: serve_end(event->data.ptr, event->events); break;
    case THE_LINE: if (role == INSIDE) hear_order(); else take_socket(); break;
    case THE_KEEPER: _exit(0); /* it never says anything: it is gone */
  }
}

int main(int count, char **arguments) {
  if (count == 3 && !strcmp(arguments[1], "inside")) role = INSIDE;
  else if (count == 4 && !strcmp(arguments[1], "outside")) role = OUTSIDE;
  else return 2;
  prepare();
  if (role == INSIDE) begin_inside(arguments[2]); else begin_outside(arguments[2], arguments[3]);
  confine();
  for (;;) {
    struct epoll_event events[256];
    int ready = epoll_wait(polled, events, 256, queries ? 1000 : -1);
    if (ready < 0 && errno != EINTR) return 19;
    for (int i = 0; i < ready; i++) serve(&events[i]);
    if (queries) end_late_queries();
    while (graves) {
      struct pair *gone = graves;
      graves = gone->next;
      gone->used = 0;
      gone->next = unused;
      unused = gone;
    }
  }
}
