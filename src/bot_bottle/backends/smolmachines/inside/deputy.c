/* What stands in for the keeper inside a bottle's virtual machine: its command, as root. Static, with musl.
 *
 *   deputy RELAY GUEST DOOR LINE
 *
 * It makes a network of its own that has only lo, starts the relay in it (RELAY inside DOOR), and does what it is told over the one
 * connection to the socket LINE. First it is told what the agent's place is like: a list of mounts and files. In namespaces of
 * its own it makes that, gives up root, and becomes GUEST (backends/guest.c), which is process 1 there and starts the agent. Then
 * it carries the streams of what runs in there. It ends with the line, and everything with it; it also ends when the relay does.
 *
 * Frames are those of backends/mux.py. Messages (channel 0) are five numbers (32 bit, little-endian) and a text: what, the number of
 * the question, the number of the process or channel, two values. deputy.py has the other side. Built by tools/make_relay.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 7, WINDOW = 256 * 1024, BLOCK = 32 * 1024, DRAINED = 128 * 1024, LARGEST = 5 << 20, PROCESSES = 1000,
       CHANNELS = 3 * PROCESSES, NUMBERS = 20 };
enum { ENDED = 0, LOST_LINE = 2, LOST_RELAY = 3, LOST_GUEST = 4, NO_ROOM = 5, NONSENSE = 6, NO_NETWORK = 7 };

struct channel {
  int fd; /* -1: there is none */
  uint16_t number;
  int reads, writes, ending;
  uint32_t under_way;
  char *waiting;
  size_t from, to;
};

/* A process, or files that are being written (`ask` alone then): GUEST says on `report` how it goes. */
struct process {
  int report; /* -1: there is none */
  uint32_t ask, number;
  uint16_t channels[3];
  int is_process;
};

struct order { uint32_t kind, size, id, value; };

static int line = -1, guest = -1, ends = -1;
static pid_t relay_pid, guest_pid;
static uint32_t agent_uid, agent_gid;
static struct channel channels[CHANNELS];
static struct process processes[PROCESSES];
static char incoming[LARGEST + HEAD], *outgoing;
static size_t had, out_from, out_to, out_room;

static void say(const char *words) {
  if (write(2, words, strlen(words)) < 0) return;
}

static uint32_t number_at(const char *at) {
  uint32_t number;
  memcpy(&number, at, 4);
  return number;
}

/* What goes out */

static void put(const void *data, size_t size) {
  if (out_to + size > out_room) {
    if (out_from) {
      memmove(outgoing, outgoing + out_from, out_to - out_from);
      out_to -= out_from;
      out_from = 0;
    }
    while (out_to + size > out_room) out_room = out_room ? out_room * 2 : 1 << 20;
    outgoing = realloc(outgoing, out_room);
    if (!outgoing) _exit(NO_ROOM);
  }
  memcpy(outgoing + out_to, data, size);
  out_to += size;
}

static void frame(uint16_t number, char kind, uint32_t length, const void *data) {
  unsigned char head[HEAD] = {(unsigned char)(number >> 8), (unsigned char)number, (unsigned char)kind, (unsigned char)(length >> 24),
                              (unsigned char)(length >> 16), (unsigned char)(length >> 8), (unsigned char)length};
  put(head, HEAD);
  if (data) put(data, length);
}

static void tell(uint32_t what, uint32_t ask, uint32_t number, uint32_t value, uint32_t more) {
  uint32_t said[5] = {what, ask, number, value, more};
  frame(0, 'd', NUMBERS, said);
}

static void answer(uint32_t ask, int error, uint32_t more) { tell('a', ask, 0, (uint32_t)error, more); }

static void send_off(void) {
  while (out_from < out_to) {
    ssize_t sent = send(line, outgoing + out_from, out_to - out_from, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) _exit(LOST_LINE);
    out_from += (size_t)sent;
  }
  out_from = out_to = 0;
}

/* Channels */

static struct channel *channel_of(uint16_t number) {
  for (int i = 0; i < CHANNELS; i++)
    if (channels[i].fd >= 0 && channels[i].number == number) return &channels[i];
  return NULL;
}

static void close_channel(struct channel *channel) {
  close(channel->fd);
  free(channel->waiting);
  memset(channel, 0, sizeof *channel);
  channel->fd = -1;
}

static void open_channel(uint16_t number, int fd, int reads, int writes) {
  struct channel *old = channel_of(number);
  if (old) close_channel(old);
  for (int i = 0; i < CHANNELS; i++)
    if (channels[i].fd < 0) {
      fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
      channels[i] = (struct channel){.fd = fd, .number = number, .reads = reads, .writes = writes};
      return;
    }
  close(fd);
}

static void perhaps_close(struct channel *channel) {
  if (!channel->reads && !channel->writes) close_channel(channel);
}

/* How many bytes came; 0 when nothing more comes, or nothing is there now. */
static size_t read_channel(struct channel *channel) {
  static char block[BLOCK];
  ssize_t size = read(channel->fd, block, sizeof block);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (size > 0) {
    channel->under_way += (uint32_t)size;
    frame(channel->number, 'd', (uint32_t)size, block);
    return (size_t)size;
  }
  channel->reads = 0; /* EIO: the last process that had the terminal is gone */
  frame(channel->number, 'e', 0, NULL);
  perhaps_close(channel);
  return 0;
}

static void nobody_reads(struct channel *channel) {
  channel->writes = 0;
  channel->from = channel->to = 0;
  frame(channel->number, 'x', 0, NULL);
  perhaps_close(channel);
}

static void pass_on(struct channel *channel) {
  ssize_t done = write(channel->fd, channel->waiting + channel->from, channel->to - channel->from);
  if (done < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (done < 0) {
    nobody_reads(channel);
    return;
  }
  channel->from += (size_t)done;
  frame(channel->number, 'c', (uint32_t)done, NULL);
  if (channel->from < channel->to) return;
  channel->from = channel->to = 0;
  if (channel->ending) {
    channel->writes = 0;
    perhaps_close(channel);
  }
}

static void take_in(struct channel *channel, const char *data, size_t size) {
  if (!channel->waiting) channel->waiting = malloc(2 * WINDOW);
  if (!channel->waiting) _exit(NO_ROOM);
  if (channel->from) {
    memmove(channel->waiting, channel->waiting + channel->from, channel->to - channel->from);
    channel->to -= channel->from;
    channel->from = 0;
  }
  if (channel->to + size > 2 * WINDOW) _exit(NONSENSE);
  memcpy(channel->waiting + channel->to, data, size);
  channel->to += size;
}

/* What comes for a channel. */
static void hear_frame(uint16_t number, char kind, const char *data, uint32_t size) {
  struct channel *channel = channel_of(number);
  if (kind == 'c') {
    if (channel) channel->under_way -= size < channel->under_way ? size : channel->under_way;
  } else if (kind == 'd' && (!channel || !channel->writes)) {
    frame(number, 'c', size, NULL);
    frame(number, 'x', 0, NULL);
  } else if (kind == 'd') {
    take_in(channel, data, size);
  } else if (kind == 'e' && channel && channel->writes) {
    channel->ending = 1;
    if (channel->from == channel->to) {
      channel->writes = 0;
      perhaps_close(channel);
    }
  } else if (kind == 'x' && channel && channel->reads) {
    channel->reads = 0;
    perhaps_close(channel);
  }
}

/* The agent's place */

static char *next_word(char **at, char *end) {
  char *word = *at, *stop = word < end ? memchr(word, 0, (size_t)(end - word)) : NULL;
  if (!stop) { errno = EBADMSG; return NULL; }
  *at = stop + 1;
  return word;
}

static int make_folder(char *path, mode_t mode, uid_t uid, gid_t gid) {
  for (char *at = path + 1; *at; at++)
    if (*at == '/') {
      *at = 0;
      int made = mkdir(path, 0755);
      *at = '/';
      if (made && errno != EEXIST) return -1;
    }
  if (mkdir(path, 0700)) return errno == EEXIST ? 0 : -1;
  return chown(path, uid, gid) || chmod(path, mode) ? -1 : 0;
}

static int write_file(const char *path, const char *content) {
  unlink(path);
  int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return -1;
  size_t size = strlen(content);
  int wrong = write(file, content, size) != (ssize_t)size || fchmod(file, 0644);
  close(file);
  return wrong ? -1 : 0;
}

static int touch(const char *path) {
  if (!access(path, F_OK)) return 0;
  int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  return file < 0 ? -1 : close(file);
}

static int enter(const char *root) {
  if (chdir(root) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/")) return -1;
  return 0;
}

/* One line of the list: its letter, then as many words as that has. */
static int make_one(char **at, char *end) {
  static const struct { char letter; int words; } kinds[] = {{'m', 5}, {'o', 5}, {'d', 4}, {'w', 2}, {'t', 1}, {'l', 2}, {'h', 1}, {'r', 1}};
  char *letter = next_word(at, end), *words[5];
  if (!letter) return -1;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (kinds[i].letter != *letter) continue;
    for (int word = 0; word < kinds[i].words; word++)
      if (!(words[word] = next_word(at, end))) return -1;
    switch (*letter) {
      case 'm': return mount(words[0], words[1], *words[2] ? words[2] : NULL, strtoul(words[3], NULL, 0), words[4]);
      case 'o': return mount(words[0], words[1], *words[2] ? words[2] : NULL, strtoul(words[3], NULL, 0), words[4]) && errno != ENOENT;
      case 'd': return make_folder(words[0], (mode_t)strtoul(words[1], NULL, 8), (uid_t)strtoul(words[2], NULL, 10),
                                   (gid_t)strtoul(words[3], NULL, 10));
      case 'w': return write_file(words[0], words[1]);
      case 't': return touch(words[0]);
      case 'l': return symlink(words[0], words[1]) && errno != EEXIST ? -1 : 0;
      case 'h': return sethostname(words[0], strlen(words[0]));
      case 'r': return enter(words[0]);
    }
  }
  errno = EBADMSG;
  return -1;
}

static int give_up_root(uint32_t most) {
  struct rlimit limit = {most, most};
  if (setgroups(0, NULL)) return -1;
  for (int number = 0; number < 64; number++)
    if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) && errno != EINVAL) return -1;
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)) return -1;
  if (most && setrlimit(RLIMIT_NPROC, &limit)) return -1;
  if (setresgid(agent_gid, agent_gid, agent_gid) || setresuid(agent_uid, agent_uid, agent_uid)) return -1;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

/* In namespaces of its own: makes the place, and becomes GUEST. Says on `report` which step failed, and why. */
static void become_guest(int program, int report, char *list, char *end, uint32_t most) {
  uint32_t failed[2] = {0, 0};
  char *words[] = {"guest", NULL}, *nothing[] = {NULL};
  umask(022);
  int wrong = mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
  while (!wrong && list < end) {
    failed[0]++;
    wrong = make_one(&list, end);
  }
  if (!wrong) {
    failed[0]++;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    wrong = null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 || give_up_root(most);
  }
  if (!wrong) {
    failed[0]++;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    syscall(SYS_execveat, program, "", words, nothing, AT_EMPTY_PATH);
  }
  failed[1] = (uint32_t)errno;
  if (write(report, failed, sizeof failed) < 0) _exit(126);
  _exit(126);
}

static int hand_over(int socket) {
  struct sockaddr_un place = {.sun_family = AF_UNIX, .sun_path = "\0bot-bottle"};
  struct timespec moment = {0, 2000000};
  int sock = socket < 0 ? -1 : (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), done = -1;
  for (int times = 0; times < 10000 && done; times++) {
    done = connect(sock, (struct sockaddr *)&place, sizeof(sa_family_t) + 11);
    if (done && errno != ECONNREFUSED) break;
    if (done) nanosleep(&moment, NULL);
  }
  if (!done) {
    char word = 'h', ancillary[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&word, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
    struct cmsghdr *carried = CMSG_FIRSTHDR(&message);
    carried->cmsg_level = SOL_SOCKET;
    carried->cmsg_type = SCM_RIGHTS;
    carried->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(carried), &socket, sizeof(int));
    done = sendmsg(sock, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
  }
  close(sock);
  return done;
}

static void begin(const char *path, uint32_t ask, uint32_t uid, uint32_t gid, uint32_t most, char *list, char *end) {
  int said[2], pair[2], program = open(path, O_RDONLY | O_CLOEXEC);
  uint32_t failed[2] = {0, 0};
  char taken;
  agent_uid = uid;
  agent_gid = gid;
  if (guest >= 0 || program < 0 || pipe2(said, O_CLOEXEC) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
    answer(ask, guest >= 0 ? EEXIST : errno, 0);
    return;
  }
  guest_pid = (pid_t)syscall(SYS_clone, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | SIGCHLD, 0, 0, 0, 0);
  if (guest_pid == 0) become_guest(program, said[1], list, end, most);
  int error = guest_pid < 0 ? errno : 0;
  close(said[1]);
  close(program);
  if (!error && read(said[0], failed, sizeof failed) == sizeof failed) error = (int)failed[1];
  close(said[0]);
  if (!error && (hand_over(pair[1]) || read(pair[0], &taken, 1) != 1)) error = errno ? errno : EPIPE;
  close(pair[1]);
  guest = pair[0];
  answer(ask, error, failed[0]);
}

/* What GUEST is asked */

static int order_guest(struct order *order, const char *text, const int *given, int count) {
  char ancillary[CMSG_SPACE(4 * sizeof(int))] = {0};
  struct iovec part = {order, sizeof *order};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count) {
    message.msg_control = ancillary;
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *carried = CMSG_FIRSTHDR(&message);
    carried->cmsg_level = SOL_SOCKET;
    carried->cmsg_type = SCM_RIGHTS;
    carried->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(carried), given, (size_t)count * sizeof(int));
  }
  if (sendmsg(guest, &message, MSG_NOSIGNAL) != sizeof *order) return -1;
  for (size_t sent = 0; sent < order->size;) {
    ssize_t more = send(guest, text + sent, order->size - sent, MSG_NOSIGNAL);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) return -1;
    sent += (size_t)more;
  }
  return 0;
}

static struct process *new_process(void) {
  for (int i = 0; i < PROCESSES; i++)
    if (processes[i].report < 0) return &processes[i];
  errno = EAGAIN;
  return NULL;
}

static int open_terminal(int ours[3], int theirs[3], uint32_t size) {
  struct winsize window = {.ws_row = (unsigned short)(size >> 16), .ws_col = (unsigned short)size};
  int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), locked = 0;
  if (master < 0) return -1;
  if (ioctl(master, TIOCSPTLCK, &locked)) {
    close(master);
    return -1;
  }
  int slave = ioctl(master, 0x5441 /* TIOCGPTPEER */, O_RDWR | O_NOCTTY | O_CLOEXEC);
  ours[0] = master;
  theirs[0] = theirs[1] = theirs[2] = slave;
  if (slave < 0 || fchown(slave, agent_uid, agent_gid)) return -1;
  if (size) ioctl(master, TIOCSWINSZ, &window);
  return 0;
}

static int open_pipes(int ours[3], int theirs[3]) {
  for (int i = 0; i < 3; i++) {
    int made[2];
    if (pipe2(made, O_CLOEXEC)) return -1;
    ours[i] = made[i == 0];
    theirs[i] = made[i != 0];
    if (fchown(theirs[i], agent_uid, agent_gid)) return -1; /* so that /dev/stdout can be opened again */
  }
  return 0;
}

static void spawn(uint32_t ask, uint32_t number, int tty, uint32_t size, char *text, uint32_t length) {
  int ours[3] = {-1, -1, -1}, theirs[4] = {-1, -1, -1, -1}, report[2] = {-1, -1};
  struct process *process = length > 8 && guest >= 0 ? new_process() : NULL;
  struct order order = {'s', length - 8, number, (uint32_t)tty};
  uint16_t numbers[3];
  memcpy(numbers, text, sizeof numbers);
  int wrong = !process || (tty ? open_terminal(ours, theirs, size) : open_pipes(ours, theirs)) ||
              socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, report);
  theirs[3] = report[1];
  if (!wrong) wrong = order_guest(&order, text + 8, theirs, 4);
  int error = wrong ? errno ? errno : EINVAL : 0;
  for (int i = 0; i < (tty ? 1 : 3); i++) {
    if (theirs[i] >= 0) close(theirs[i]);
    if (!error) open_channel(numbers[i], ours[i], tty || i > 0, tty || i == 0);
    else if (ours[i] >= 0) close(ours[i]);
  }
  if (report[1] >= 0) close(report[1]);
  if (error) {
    if (report[0] >= 0) close(report[0]);
    answer(ask, error, 0);
    return;
  }
  *process = (struct process){report[0], ask, number, {numbers[0], tty ? 0 : numbers[1], tty ? 0 : numbers[2]}, 1};
}

static void write_files(uint32_t ask, char *text, uint32_t length) {
  int report[2];
  struct process *process = guest >= 0 ? new_process() : NULL;
  struct order order = {'w', length, 0, 0};
  if (!process || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, report)) {
    answer(ask, process ? errno : EAGAIN, 0);
    return;
  }
  if (order_guest(&order, text, &report[1], 1)) _exit(LOST_GUEST);
  close(report[1]);
  *process = (struct process){report[0], ask, 0, {0}, 0};
}

/* GUEST says how something goes. */
static void hear_report(struct process *process) {
  uint32_t said[2];
  ssize_t size = read(process->report, said, sizeof said);
  if (size < 0 && errno == EINTR) return;
  if (size != sizeof said) said[0] = 'g', said[1] = SIGKILL;
  if (!process->is_process) {
    answer(process->ask, said[0] == 'e' ? 0 : said[0] == 'f' ? (int)(said[1] >> 16) : EPIPE, said[1] & 0xFFFF);
  } else if (said[0] == 's') {
    answer(process->ask, 0, 0);
    return;
  } else if (said[0] == 'f') {
    answer(process->ask, (int)said[1], 0);
  } else {
    for (int i = 0; i < 3; i++) {
      struct channel *channel;
      size_t all = 0, more = 1;
      while (more && all < DRAINED && (channel = channel_of(process->channels[i])) && channel->reads) {
        more = read_channel(channel);
        all += more;
      }
    }
    tell('e', 0, process->number, said[1], 0);
  }
  close(process->report);
  process->report = -1;
}

/* What the keeper says */

static void obey(const char *path, char *text, uint32_t size) {
  if (size < NUMBERS) _exit(NONSENSE);
  uint32_t what = number_at(text), ask = number_at(text + 4), number = number_at(text + 8), value = number_at(text + 12),
           more = number_at(text + 16);
  char *body = text + NUMBERS, *end = text + size;
  uint32_t length = size - NUMBERS;
  if (what == 'b') {
    begin(path, ask, number, value, more, body, end);
  } else if (what == 'f') {
    struct order order = {'f', length, 0, value};
    answer(ask, guest < 0 || order_guest(&order, body, NULL, 0) ? EPIPE : 0, 0);
  } else if (what == 's') {
    spawn(ask, number, (int)value, more, body, length);
  } else if (what == 'w') {
    write_files(ask, body, length);
  } else if (what == 'k') {
    struct order order = {'k', 0, number, value};
    order_guest(&order, NULL, NULL, 0);
  } else if (what == 'z') {
    struct channel *channel = channel_of((uint16_t)number);
    struct winsize window = {.ws_row = (unsigned short)value, .ws_col = (unsigned short)more};
    if (channel && value && more) ioctl(channel->fd, TIOCSWINSZ, &window);
  } else {
    _exit(NONSENSE);
  }
}

static void hear_line(const char *path) {
  ssize_t size = recv(line, incoming + had, sizeof incoming - had, MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) _exit(ENDED);
  had += (size_t)size;
  char *at = incoming;
  while (had >= HEAD) {
    unsigned char *head = (unsigned char *)at;
    uint16_t number = (uint16_t)(head[0] << 8 | head[1]);
    uint32_t length = (uint32_t)head[3] << 24 | (uint32_t)head[4] << 16 | (uint32_t)head[5] << 8 | head[6];
    uint32_t comes = head[2] == 'c' ? 0 : length;
    if (comes > (number ? WINDOW : LARGEST)) _exit(NONSENSE);
    if (had < HEAD + (size_t)comes) break;
    if (number) hear_frame(number, (char)head[2], at + HEAD, length);
    else if (head[2] == 'd') obey(path, at + HEAD, length);
    at += HEAD + comes;
    had -= HEAD + comes;
  }
  memmove(incoming, at, had);
}

static void hear_children(void) {
  struct signalfd_siginfo told;
  if (read(ends, &told, sizeof told) < 0) return;
  for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
    if (pid == relay_pid) { say("deputy: the relay has ended\n"); _exit(LOST_RELAY); }
    if (pid == guest_pid && guest >= 0) { say("deputy: process 1 has ended\n"); _exit(LOST_GUEST); }
  }
}

static void turn(const char *path) {
  static struct pollfd polled[2 + CHANNELS + PROCESSES];
  static void *whose[2 + CHANNELS + PROCESSES];
  nfds_t count = 2;
  int full = out_to - out_from > 4 * WINDOW;
  polled[0] = (struct pollfd){line, (short)(POLLIN | (out_to > out_from ? POLLOUT : 0)), 0};
  polled[1] = (struct pollfd){ends, POLLIN, 0};
  for (int i = 0; i < PROCESSES; i++)
    if (processes[i].report >= 0) whose[count] = &processes[i], polled[count++] = (struct pollfd){processes[i].report, POLLIN, 0};
  nfds_t first = count;
  for (int i = 0; i < CHANNELS; i++) {
    struct channel *channel = &channels[i];
    if (channel->fd < 0) continue;
    int wanted = (channel->reads && channel->under_way < WINDOW && !full ? POLLIN : 0) | (channel->to > channel->from ? POLLOUT : 0);
    if (wanted) whose[count] = channel, polled[count++] = (struct pollfd){channel->fd, (short)wanted, 0};
  }
  if (poll(polled, count, -1) < 0) return;
  for (nfds_t i = first; i < count; i++) {
    struct channel *channel = whose[i];
    if (channel->fd != polled[i].fd) continue;
    if (polled[i].revents & (POLLOUT | POLLERR) && channel->to > channel->from) pass_on(channel);
    else if (polled[i].revents & POLLHUP && channel->to > channel->from) nobody_reads(channel); /* a full terminal that nobody has */
    if (channel->fd == polled[i].fd && polled[i].events & POLLIN && polled[i].revents & (POLLIN | POLLHUP | POLLERR)) read_channel(channel);
  }
  for (nfds_t i = 2; i < first; i++)
    if (polled[i].revents) hear_report(whose[i]);
  if (polled[1].revents) hear_children();
  if (out_to > out_from) send_off();
  if (polled[0].revents & ~POLLOUT) hear_line(path);
}

static void start_relay(char *program, char *door) {
  char *words[] = {program, "inside", door, NULL}, *nothing[] = {NULL};
  relay_pid = fork();
  if (relay_pid < 0) _exit(NO_ROOM);
  if (relay_pid) return;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  execve(program, words, nothing);
  _exit(127);
}

int main(int count, char **words) {
  struct sockaddr_un place = {.sun_family = AF_UNIX};
  if (count != 5 || strlen(words[4]) >= sizeof place.sun_path) return NONSENSE;
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  for (int i = 0; i < CHANNELS; i++) channels[i].fd = -1;
  for (int i = 0; i < PROCESSES; i++) processes[i].report = -1;
  signal(SIGPIPE, SIG_IGN);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  ends = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (ends < 0 || unshare(CLONE_NEWNET)) return NO_NETWORK;
  start_relay(words[1], words[3]);
  strcpy(place.sun_path, words[4]);
  line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(line, (struct sockaddr *)&place, sizeof place)) return LOST_LINE;
  tell('u', 0, 0, 0, 0);
  send_off();
  for (;;) turn(words[2]);
}
