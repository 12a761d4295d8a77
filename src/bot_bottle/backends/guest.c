/* Process 1 of an agent's container, and the helper that opens its door. Static, without a C library.
 *
 *   bottle          process 1: waits until the helper hands it the keeper's socket, then does what it is told over that:
 *                   starts processes on descriptors that come with the order, signals them, writes files. Ends with it.
 *   bottle door     the helper, in the agent's network namespace: connects to /door/s, is told which listeners to open,
 *                   passes them back, and hands the keeper's socket to process 1 when one came along.
 *
 * Process 1 can't be traced, stopped or killed from inside. Whatever it starts has no descriptor of its own.
 * The other side of each protocol is guest.py and door.py. Built by tools/make_guest.py.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, MMAP = 9, IOCTL = 16, SOCKET = 41, CONNECT = 42, SENDMSG = 46, RECVMSG = 47, BIND = 49,
       LISTEN = 50, SETSOCKOPT = 54, CLONE = 56, EXECVE = 59, EXIT = 60, WAIT4 = 61, KILL = 62, CHDIR = 80, UMASK = 95,
       SETSID = 112, PRCTL = 157, EXIT_GROUP = 231, OPENAT = 257, MKDIRAT = 258, UNLINKAT = 263, FCHMOD = 91, PPOLL = 271,
       ACCEPT4 = 288, PRLIMIT = 302, SIGNALFD4 = 289, DUP3 = 292, SIGPROCMASK = 14, NANOSLEEP = 35, SIGACTION = 13, GETSOCKOPT = 55, FCNTL = 72 };
static i64 call6(i64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    i64 result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, CLOSE = 57, MMAP = 222, IOCTL = 29, SOCKET = 198, CONNECT = 203, SENDMSG = 211, RECVMSG = 212,
       BIND = 200, LISTEN = 201, SETSOCKOPT = 208, CLONE = 220, EXECVE = 221, EXIT = 93, WAIT4 = 260, KILL = 129, CHDIR = 49,
       UMASK = 166, SETSID = 157, PRCTL = 167, EXIT_GROUP = 94, OPENAT = 56, MKDIRAT = 34, UNLINKAT = 35, FCHMOD = 52,
       PPOLL = 73, ACCEPT4 = 242, PRLIMIT = 261, SIGNALFD4 = 74, DUP3 = 24, SIGPROCMASK = 135, NANOSLEEP = 101, SIGACTION = 134, GETSOCKOPT = 209, FCNTL = 25 };
static i64 call6(i64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 x8 __asm__("x8") = (u64)n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                 x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return (i64)x0;
}
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n b begin\n");
#else
#error "no system calls are known for this machine"
#endif
#define sys(n, a, b, c) call6(n, (u64)(a), (u64)(b), (u64)(c), 0, 0, 0)
#define sys4(n, a, b, c, d) call6(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), 0, 0)
#define sys5(n, a, b, c, d, e) call6(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), 0)

enum { ESRCH = 3, EINTR = 4, EAGAIN = 11, EEXIST = 17, ENOENT = 2, ENOTDIR = 20, ECONNREFUSED = 111, ENFILE = 23 };
enum { AT_FDCWD = -100, CLOEXEC = 02000000, O_WRONLY = 1, O_CREAT = 0100, O_EXCL = 0200,
#if defined(__aarch64__)
       O_NOFOLLOW = 0100000,
#else
       O_NOFOLLOW = 0400000,
#endif
       SIGCHLD = 17, MSG_NOSIGNAL = 0x4000, MSG_CMSG_CLOEXEC = 0x40000000, MSG_WAITALL = 0x100 };

/* What a compiler may call by itself. */
void *memcpy(void *to, const void *from, u64 size)
{
    u8 *t = to;
    const u8 *f = from;
    while (size--)
        *t++ = *f++;
    return to;
}
void *memset(void *to, int value, u64 size)
{
    u8 *t = to;
    while (size--)
        *t++ = (u8)value;
    return to;
}
static u64 length_of(const char *text)
{
    u64 length = 0;
    while (text[length])
        length++;
    return length;
}
static void __attribute__((noreturn)) leave(int code)
{
    for (;;)
        sys(EXIT_GROUP, code, 0, 0);
}
static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* Messages with descriptors */

struct part { void *base; u64 size; };
struct message { void *name; u32 name_size; struct part *parts; u64 count; void *control; u64 control_size; u32 flags; };
enum { MOST = 64 };
struct rights { u64 size; u32 level, type; int descriptors[MOST]; };

static i64 receive(int sock, void *data, u64 size, int *descriptors, int *count)
{
    struct rights rights;
    struct part part = {data, size};
    struct message message = {0, 0, &part, 1, &rights, sizeof rights, 0};
    i64 got;
    do
        got = sys(RECVMSG, sock, &message, MSG_CMSG_CLOEXEC);
    while (got == -EINTR);
    *count = 0;
    if (got > 0 && message.control_size >= 16 && rights.level == 1 && rights.type == 1) {
        *count = (int)((rights.size - 16) / 4);
        memcpy(descriptors, rights.descriptors, (u64)*count * 4);
    }
    return got;
}

static i64 send_with(int sock, const void *data, u64 size, const int *descriptors, int count)
{
    struct rights rights = {16 + 4 * (u64)count, 1, 1, {0}};
    struct part part = {(void *)data, size};
    struct message message = {0, 0, &part, 1, count ? &rights : 0, count ? (16 + 4 * (u64)count + 7) & ~7UL : 0, 0};
    memcpy(rights.descriptors, descriptors, 4 * (u64)count);
    return sys(SENDMSG, sock, &message, MSG_NOSIGNAL);
}

static int read_whole(int from, void *data, u64 size)
{
    u8 *to = data;
    while (size) {
        i64 got = sys(READ, from, to, size);
        if (got == -EINTR)
            continue;
        if (got <= 0)
            return 0;
        to += got;
        size -= (u64)got;
    }
    return 1;
}

static int wait_for(int sock, i64 milliseconds)
{
    struct { int fd; u16 events, revents; } waiting = {sock, 1, 0};
    i64 time[2] = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    return sys5(PPOLL, &waiting, 1, time, 0, 0) > 0;
}

struct local { u16 family; char path[108]; };
static const struct local HANDOVER = {1, "\0bot-bottle"};
enum { HANDOVER_SIZE = 2 + 11 };

/* Process 1 */

struct order { u32 kind, size, id, value; };
/* 's' spawn: 0, 1, 2 and the report come along; value: whether they are a terminal. 'w' write files: the report comes along.
 * 'k' signal: value to the group of process id. 'f' filter: a seccomp program that everything
 * inside is under from then on; value: how many descriptors a process may have. */
struct report { u32 kind, value; };
/* 's' it runs, 'e' it ended (value as in wait), 'f' it could not be started (value: why) */

enum { PROCESSES = 1024, LARGEST = 4 << 20, POINTERS = 65536 };
static struct { int pid, report; u32 id; } processes[PROCESSES];
static char *order_text;
static char *pointers[POINTERS];

static void tell(int report, u32 kind, u32 value)
{
    struct report said = {kind, value};
    send_with(report, &said, sizeof said, 0, 0);
}

static void say(const char *a, const char *b)
{
    sys(WRITE, 2, "bot-bottle: ", 12);
    sys(WRITE, 2, a, length_of(a));
    sys(WRITE, 2, b, length_of(b));
    sys(WRITE, 2, "\n", 1);
}

/* The text of 's': three numbers (how many programs to try, variables, words), then the folder and all of them, each with its
 * null byte. The first word is said when nothing could be run. */
static void __attribute__((noreturn)) become(u32 size)
{
    u32 *numbers = (u32 *)order_text;
    u64 total = (u64)numbers[0] + numbers[1] + numbers[2] + 3;
    char *at = order_text + 12, *end = order_text + size;
    char *folder = at, **fill = pointers, **variables, **words;
    int code = 127;
    if (total > POINTERS || size < 14 || end[-1])
        leave(126);
    at += length_of(at) + 1;
    for (u32 kind = 0; kind < 3; kind++) {
        for (u32 number = 0; number < numbers[kind]; number++) {
            if (at >= end)
                leave(126);
            *fill++ = at;
            at += length_of(at) + 1;
        }
        *fill++ = 0;
    }
    variables = pointers + numbers[0] + 1;
    words = variables + numbers[1] + 1;
    if (sys(CHDIR, folder, 0, 0) < 0) {
        say(folder, ": no such folder, or not to be entered");
        leave(126);
    }
    for (char **program = pointers; *program; program++) {
        i64 failed = sys(EXECVE, *program, words, variables);
        if (failed != -ENOENT && failed != -ENOTDIR)
            code = 126;
    }
    say(words[0] ? words[0] : "", code == 127 ? ": not found" : ": can't be run");
    leave(code);
}

static i64 fork_one(void)
{
    return sys5(CLONE, SIGCHLD, 0, 0, 0, 0);
}

/* An engine may have been started with signals ignored, and what it starts inherits that. */
static void take_signals(void)
{
    u64 none = 0, as_usual[4] = {0, 0, 0, 0};
    for (int number = 1; number <= 64; number++)
        sys4(SIGACTION, number, as_usual, 0, 8);
    sys4(SIGPROCMASK, 2, &none, 0, 8);
}

static void spawn(struct order *order, int *descriptors, int count)
{
    int place = 0;
    i64 pid = -ENFILE;
    if (count != 4)
        goto out;
    while (place < PROCESSES && processes[place].pid)
        place++;
    if (place < PROCESSES)
        pid = fork_one();
    if (pid == 0) {
        take_signals();
        sys(SETSID, 0, 0, 0);
        for (int number = 0; number < 3; number++)
            sys(DUP3, descriptors[number], number, 0);
        if (order->value)
            sys(IOCTL, 0, 0x540E, 0);
        become(order->size);
    }
    if (pid > 0) {
        processes[place].pid = (int)pid;
        processes[place].report = descriptors[3];
        processes[place].id = order->id;
        tell(descriptors[3], 's', (u32)pid);
        count = 3;
    } else
        tell(descriptors[3], 'f', (u32)-pid);
out:
    while (count)
        sys(CLOSE, descriptors[--count], 0, 0);
}

/* Files: for each its name's length, its mode and its size, then the name with its null byte and the content. */

static i64 write_file(char *path, u32 mode, char *content, u64 size)
{
    i64 file, put;
    for (char *at = path + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            file = sys(MKDIRAT, AT_FDCWD, path, 0700);
            *at = '/';
            if (file < 0 && file != -EEXIST)
                return file;
        }
    sys(UNLINKAT, AT_FDCWD, path, 0);
    file = sys4(OPENAT, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | CLOEXEC, 0600);
    if (file < 0)
        return file;
    for (; size; content += put, size -= (u64)put) {
        put = sys(WRITE, file, content, size);
        if (put == -EINTR)
            put = 0;
        if (put < 0)
            return put;
    }
    put = sys(FCHMOD, file, mode & 0777, 0);
    sys(CLOSE, file, 0, 0);
    return put;
}

static void __attribute__((noreturn)) write_files(int report, u32 size)
{
    char *at = order_text, *end = order_text + size;
    u32 number = 0, failed = 0, why = 0;
    sys(UMASK, 077, 0, 0);
    for (; at + 12 < end; number++) {
        u32 numbers[3];
        memcpy(numbers, at, 12);
        at += 12;
        if ((u64)numbers[0] + 1 + numbers[2] > (u64)(end - at) || at[numbers[0]])
            leave(1);
        i64 done = write_file(at, numbers[1], at + numbers[0] + 1, numbers[2]);
        if (done < 0 && !why)
            failed = number, why = (u32)-done;
        at += (u64)numbers[0] + 1 + numbers[2];
    }
    tell(report, why ? 'f' : 'e', why ? why << 16 | (failed & 0xFFFF) : 0);
    leave(0);
}

static void write_beside(struct order *order, int *descriptors, int count)
{
    if (count == 1) {
        i64 pid = fork_one();
        if (pid == 0)
            write_files(descriptors[0], order->size);
        if (pid < 0)
            tell(descriptors[0], 'f', (u32)-pid << 16);
    }
    while (count)
        sys(CLOSE, descriptors[--count], 0, 0);
}

static void signal_one(struct order *order)
{
    for (int place = 0; place < PROCESSES; place++)
        if (processes[place].pid && processes[place].id == order->id)
            if (sys(KILL, -(i64)processes[place].pid, order->value, 0) == -ESRCH)
                sys(KILL, processes[place].pid, order->value, 0); /* it has not made its group yet */
}

static void limit(u32 kind, u64 value)
{
    u64 limits[2];
    if (sys4(PRLIMIT, 0, kind, 0, limits) < 0)
        leave(5);
    limits[0] = limits[1] = value < limits[1] ? value : limits[1];
    if (sys4(PRLIMIT, 0, kind, limits, 0) < 0)
        leave(5);
}

static void confine(struct order *order)
{
    limit(4, 0); /* RLIMIT_CORE */
    limit(7, order->value); /* RLIMIT_NOFILE */
    struct { u16 count; void *program; } filter = {(u16)(order->size / 8), order_text};
    if (!order->size || sys5(PRCTL, 38, 1, 0, 0, 0) < 0 || sys5(PRCTL, 22, 2, &filter, 0, 0) < 0)
        leave(5); /* PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP */
}

static void reap(void)
{
    int status = 0;
    i64 pid;
    while ((pid = sys4(WAIT4, -1, &status, 1, 0)) > 0)
        for (int place = 0; place < PROCESSES; place++)
            if (processes[place].pid == (int)pid) {
                processes[place].pid = 0;
                tell(processes[place].report, 'e', (u32)status);
                sys(CLOSE, processes[place].report, 0, 0);
            }
}

static int obey(int keeper)
{
    struct order order;
    int descriptors[MOST], count;
    i64 got = receive(keeper, &order, sizeof order, descriptors, &count);
    if (got <= 0 || !read_whole(keeper, (u8 *)&order + got, sizeof order - (u64)got))
        return 0;
    if (order.size > LARGEST || !read_whole(keeper, order_text, order.size))
        return 0;
    if (order.kind == 's')
        spawn(&order, descriptors, count);
    else if (order.kind == 'w')
        write_beside(&order, descriptors, count);
    else {
        if (order.kind == 'k')
            signal_one(&order);
        else if (order.kind == 'f')
            confine(&order);
        while (count)
            sys(CLOSE, descriptors[--count], 0, 0);
    }
    return 1;
}

static int take_over(void)
{
    int descriptors[MOST], count;
    char word;
    i64 sock = sys(SOCKET, 1, 1 | CLOEXEC, 0);
    if (sock < 0 || sys(BIND, sock, &HANDOVER, HANDOVER_SIZE) < 0 || sys(LISTEN, sock, 1, 0) < 0)
        leave(2);
    if (!wait_for((int)sock, 120000))
        leave(3);
    i64 helper = sys4(ACCEPT4, sock, 0, 0, CLOEXEC);
    sys(CLOSE, sock, 0, 0);
    if (helper < 0 || receive((int)helper, &word, 1, descriptors, &count) != 1 || count != 1)
        leave(4);
    sys(CLOSE, helper, 0, 0);
    return descriptors[0];
}

static void __attribute__((noreturn)) hold(void)
{
    u64 child = 1UL << (SIGCHLD - 1);
    sys5(PRCTL, 4, 0, 0, 0, 0); /* PR_SET_DUMPABLE */
    sys(UMASK, 022, 0, 0);
    sys4(SIGPROCMASK, 2, &child, 0, 8);
    i64 ended = sys4(SIGNALFD4, -1, &child, 8, CLOEXEC | 04000);
    order_text = (char *)call6(MMAP, 0, LARGEST, 3, 0x22, (u64)-1, 0);
    if (ended < 0 || (u64)order_text > -4096UL)
        leave(1);
    int keeper = take_over();
    sys(WRITE, keeper, "+", 1);
    for (;;) {
        struct { int fd; u16 events, revents; } waiting[2] = {{keeper, 1, 0}, {(int)ended, 1, 0}};
        char told[128];
        sys5(PPOLL, waiting, 2, 0, 0, 0);
        if (waiting[1].revents) {
            sys(READ, ended, told, sizeof told);
            reap();
        }
        if (waiting[0].revents && !obey(keeper))
            leave(0);
    }
}

/* The helper */

struct listener { u32 datagrams, address; u16 port, unused; }; /* address and port as they are sent */
struct inet { u16 family, port; u32 address; u64 unused; };

static void __attribute__((noreturn)) fail(int keeper, u8 step, i64 number)
{
    u8 said[3] = {'!', step, (u8)-number};
    send_with(keeper, said, 3, 0, 0);
    leave(1);
}

/* A network that has anything but lo is not a bottle's: were the container in the host's, what follows would cut that off. */
static void refuse_a_network(int keeper)
{
    struct { char name[16], rest[24]; } found[16];
    struct { int size, unused; void *found; } request = {sizeof found, 0, found};
    i64 sock = sys(SOCKET, 2, 2 | CLOEXEC, 0);
    i64 done = sys(IOCTL, sock, 0x8912, &request);
    for (u64 number = 0; done >= 0 && number < (u64)request.size / sizeof found[0]; number++)
        if (!same(found[number].name, "lo"))
            done = -EEXIST;
    sys(CLOSE, sock, 0, 0);
    if (done < 0)
        fail(keeper, 5, done);
}

static void raise_loopback(int keeper)
{
    struct { char name[16]; u16 flags; char rest[22]; } request = {"lo", 0, {0}};
    i64 sock = sys(SOCKET, 2, 2 | CLOEXEC, 0);
    i64 done = sys(IOCTL, sock, 0x8913, &request);
    if (done >= 0 && !(request.flags & 1)) {
        request.flags |= 1;
        done = sys(IOCTL, sock, 0x8914, &request);
    }
    if (done < 0)
        fail(keeper, 1, done);
}

static void make_every_address_local(int keeper)
{
    struct { char name[16]; int index; char rest[20]; } lo = {"lo", 0, {0}};
    struct {
        u32 size; u16 type, flags; u32 sequence, port;
        u8 family, to_bits, from_bits, tos, table, protocol, scope, kind; u32 route_flags;
        u16 attribute_size, attribute; u32 device;
    } request = {36, 24, 0x605, 1, 0, 2, 0, 0, 0, 255, 4, 254, 2, 0, 8, 4, 0};
    struct { u32 size; u16 type, flags; u32 sequence, port; int error; u8 rest[1000]; } answer;
    i64 sock = sys(SOCKET, 2, 2 | CLOEXEC, 0);
    i64 done = sys(IOCTL, sock, 0x8933, &lo);
    request.device = (u32)lo.index;
    i64 netlink = sys(SOCKET, 16, 3 | CLOEXEC, 0);
    if (done >= 0)
        done = sys(WRITE, netlink, &request, sizeof request);
    if (done >= 0)
        done = sys(READ, netlink, &answer, sizeof answer);
    if (done >= 0 && (done < 20 || answer.type != 2))
        done = -71;
    if (done >= 0 && answer.error && answer.error != -EEXIST)
        done = answer.error;
    if (done < 0)
        fail(keeper, 2, done);
}

static int open_listener(int keeper, struct listener *wanted)
{
    struct inet address = {2, wanted->port, wanted->address, 0};
    int yes = 1;
    i64 sock = sys(SOCKET, 2, (wanted->datagrams ? 2 : 1) | CLOEXEC | 04000, 0);
    /* Not SO_REUSEADDR for datagrams: there it would let the agent bind the same port and take the queries. */
    i64 done = wanted->datagrams ? sys5(SETSOCKOPT, sock, 0, 8, &yes, 4) : sys5(SETSOCKOPT, sock, 1, 2, &yes, 4);
    if (done >= 0)
        done = sys(BIND, sock, &address, 16);
    if (done >= 0 && !wanted->datagrams)
        done = sys(LISTEN, sock, 1024, 0);
    if (sock < 0 || done < 0)
        fail(keeper, 3, sock < 0 ? sock : done);
    return (int)sock;
}

static void hand_over(int keeper, int socket)
{
    i64 sock = sys(SOCKET, 1, 1 | CLOEXEC, 0), done = -1;
    for (int times = 0; times < 10000; times++) { /* process 1 may not listen yet */
        i64 pause[2] = {0, 1000000};
        done = sys(CONNECT, sock, &HANDOVER, HANDOVER_SIZE);
        if (done != -ECONNREFUSED)
            break;
        sys(NANOSLEEP, pause, 0, 0);
    }
    if (done >= 0)
        done = send_with((int)sock, "h", 1, &socket, 1);
    if (done < 0)
        fail(keeper, 4, done);
}

/* Order after order: the keeper's socket for process 1, then (once) listeners. */
static void __attribute__((noreturn)) open_door(void)
{
    static const struct local address = {1, "/door/s"};
    struct { u32 count; struct listener listeners[MOST]; } told;
    int descriptors[MOST], count, sockets[MOST];
    i64 keeper = sys(SOCKET, 1, 1 | CLOEXEC, 0);
    if (keeper < 0 || sys(CONNECT, keeper, &address, sizeof address) < 0)
        leave(2);
    refuse_a_network((int)keeper);
    for (;;) {
        i64 got = receive((int)keeper, &told, sizeof told, descriptors, &count);
        if (got < 4 || told.count > MOST || (u64)got != 4 + told.count * sizeof(struct listener))
            leave(got ? 3 : 0);
        if (count) {
            hand_over((int)keeper, descriptors[0]);
            while (count)
                sys(CLOSE, descriptors[--count], 0, 0);
        }
        if (!told.count)
            continue;
        raise_loopback((int)keeper);
        make_every_address_local((int)keeper);
        for (u32 number = 0; number < told.count; number++)
            sockets[number] = open_listener((int)keeper, &told.listeners[number]);
        leave(send_with((int)keeper, "door", 4, sockets, (int)told.count) == 4 ? 0 : 4);
    }
}

void __attribute__((noreturn, used)) begin(u64 *stack)
{
    char **words = (char **)(stack + 1);
    if (stack[0] == 2 && same(words[1], "door"))
        open_door();
    hold();
}
