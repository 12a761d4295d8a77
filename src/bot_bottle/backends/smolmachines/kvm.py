"""Whether this machine's KVM can be used: the device is opened and asked, since its being there says little.

A yes here means that a virtual machine can be made with a processor; whether smolvm's own kernel boots in it, only a boot tells
(`doctor.try_a_machine`).
"""

import errno
import fcntl
import os
import sys

from bot_bottle.errors import HostError
from bot_bottle.typed import Final

DEVICE: Final = "/dev/kvm"
API_VERSION: Final = 12
"""The only one since Linux 2.6.22; the kernel's own documentation says to refuse every other."""
_GET_API_VERSION, _CREATE_VM, _CREATE_VCPU = 0xAE00, 0xAE01, 0xAE41
_PARAVIRTUAL: Final = "/sys/module/kvm_pvm"


def check(device: str = DEVICE, paravirtual: str = _PARAVIRTUAL) -> int:
    """KVM's API version. Raises HostError that says what a person has to do."""
    if sys.platform != "linux":
        raise HostError(
            "MicroVMs are for Linux here",
            details=f"This is {sys.platform}: smolvm itself runs on macOS, bot-bottle does not.",
            resolution="Run bot-bottle in a Linux machine with nested virtualisation",
        )
    try:
        opened = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _no_device(device, error) from error
    try:
        version = _try(opened, device)
    finally:
        os.close(opened)
    if os.path.isdir(paravirtual):
        raise HostError(
            "This machine's KVM runs only kernels that are made for it",
            details=f"{paravirtual} is there: virtual machines without the processor's help (PVM). smolvm's kernel is not one.",
            resolution="Use a machine whose processor's virtualisation is passed on, or backend: namespace",
        )
    return version


def _try(opened: int, device: str) -> int:
    try:
        version = fcntl.ioctl(opened, _GET_API_VERSION, 0)
        if version != API_VERSION:
            raise HostError(f"{device} speaks version {version} of KVM's API, not {API_VERSION}")
        machine = fcntl.ioctl(opened, _CREATE_VM, 0)
        try:
            os.close(fcntl.ioctl(machine, _CREATE_VCPU, 0))
        finally:
            os.close(machine)
    except OSError as error:
        raise HostError(
            f"{device} can be opened, and no virtual machine can be made with it",
            details=error.strerror or str(error),
            resolution="Look whether another hypervisor has the processor, and whether nested virtualisation is on",
        ) from error
    return version


def _no_device(device: str, error: OSError) -> HostError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return HostError(
            f"You may not open {device}",
            details=error.strerror or "",
            resolution="Add yourself to its group and log in again: sudo usermod -aG kvm $USER",
        )
    return HostError(
        f"There is no usable {device}",
        details=error.strerror or str(error),
        resolution="Turn on virtualisation in the firmware, or nested virtualisation where this is itself a virtual machine, "
        "and load kvm_intel or kvm_amd",
    )
