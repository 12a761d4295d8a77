"""Small Python programs that look at a bottle from inside and print JSON; with no quote ' in them, for the shell."""

CONFINEMENT = """
import json, os, resource
status = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
names = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
limits = {"core": "CORE", "files": "NOFILE", "processes": "NPROC", "locked": "MEMLOCK"}
print(json.dumps({
    "capabilities": [status["Cap" + kind].strip() for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
    "flags": {name: status[name].strip() for name in ("NoNewPrivs", "Seccomp")},
    "filters": status.get("Seccomp_filters", "").strip(),
    "ids": [*os.getresuid(), *os.getresgid()],
    "groups": os.getgroups(),
    "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in names},
    "limits": {name: list(resource.getrlimit(getattr(resource, "RLIMIT_" + kind))) for name, kind in limits.items()},
    "root": os.stat("/").st_ino,
    "umask": status["Umask"].strip(),
    "cgroups": open("/proc/self/cgroup").read(),
}))
"""

REFUSALS = """
import ctypes, errno, fcntl, json, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
numbers = {
    "x86_64": dict(bpf=321, io_uring_setup=425, keyctl=250, add_key=248, userfaultfd=323, perf_event_open=298,
                   process_vm_readv=310, open_by_handle_at=304, mount_setattr=442, open_tree=428, kexec_load=246,
                   init_module=175, swapon=167, reboot=169, quotactl=179, acct=163, syslog=103, setns=308),
    "aarch64": dict(bpf=280, io_uring_setup=425, keyctl=219, add_key=217, userfaultfd=282, perf_event_open=241,
                    process_vm_readv=270, open_by_handle_at=265, mount_setattr=442, open_tree=428, kexec_load=104,
                    init_module=105, swapon=224, reboot=142, quotactl=60, acct=89, syslog=116, setns=268),
}[os.uname().machine]
found = {}
for name, number in numbers.items():
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
    found[name] = result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
for name, flag in dict(user=0x10000000, mnt=0x20000, pid=0x20000000, net=0x40000000, time=0x80).items():
    found["unshare " + name] = libc.unshare(flag) == -1
    child = libc.syscall(ctypes.c_long(435), None, ctypes.c_long(0))
    found["clone3"] = child == -1 and ctypes.get_errno() == errno.ENOSYS
found["mount"] = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == -1
found["umount"] = libc.umount2(b"/tmp", 2) == -1
found["setuid"] = libc.setresuid(0, 0, 0) == -1
def refused(what, *kinds):
    try:
        what()
    except OSError as error:
        return not kinds or error.errno in kinds
    return False
pty, terminal = os.openpty()
for name, request in dict(TIOCSTI=0x5412, TIOCLINUX=0x541C, high_TIOCSTI=0x100005412).items():
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long({"x86_64": 16, "aarch64": 29}[os.uname().machine]), ctypes.c_long(terminal),
                          ctypes.c_long(request), ctypes.c_char_p(b"x"))
    found[name] = result == -1 and ctypes.get_errno() == errno.EPERM
for name, family in dict(vsock=40, packet=17, alg=38, bluetooth=31, can=29, xdp=44, tipc=30, key=15).items():
    found["socket " + name] = refused(lambda: socket.socket(family, socket.SOCK_DGRAM), errno.EAFNOSUPPORT)
found["raw socket"] = refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
found["netlink audit"] = refused(lambda: socket.socket(16, socket.SOCK_RAW, 9), errno.EAFNOSUPPORT)
found["route"] = refused(lambda: open("/proc/sys/net/ipv4/ip_forward", "w"))
found["sysrq"] = refused(lambda: open("/proc/sysrq-trigger", "w"))
found["device"] = refused(lambda: os.mknod("/tmp/device", 0o60600, 0x801))
found["oom"] = refused(lambda: open("/proc/1/oom_score_adj", "w").write("-1000"))
print(json.dumps(found))
"""

VISIBLE = """
import json, os
places = ["/root", "/var/run/docker.sock", "/run/docker.sock", "/run/user", "/var/lib", "/var/log", "/srv", "/mnt", "/boot",
          "/etc/shadow", "/etc/ssh", "/etc/ssl/private", "/opt", "/sys", "/run/systemd", "/run/dbus",
          "/dev/sda", "/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net"]
def readable(path):
    try:
        return bool(open(path, "rb").read(1))
    except OSError:
        return False
secret = ["/proc/cmdline", "/proc/kallsyms", "/proc/keys", "/proc/kcore", "/proc/timer_list"]
print(json.dumps({
    "interfaces": sorted(name.split(":")[0].strip() for name in list(open("/proc/net/dev"))[2:]),
    "routes": list(open("/proc/net/route"))[1:],
    "home": sorted(os.listdir(os.path.expanduser("~"))),
    "present": [place for place in places if os.path.lexists(place)] + [place for place in secret if readable(place)],
    "uids_in_passwd": [line.split(":")[2] for line in open("/etc/passwd")],
}))
"""
