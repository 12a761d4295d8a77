"""Whether KVM can be used is tried, and each way in which it can't has its own cure."""

import os
from pathlib import Path

import pytest

from bot_bottle.backends.smolmachines import kvm
from bot_bottle.errors import HostError


def said(**places: str) -> HostError:
    with pytest.raises(HostError) as caught:
        kvm.check(**places)
    assert caught.value.resolution or caught.value.details
    return caught.value


def test_no_device_is_for_the_firmware(tmp_path: Path):
    assert "firmware" in said(device=str(tmp_path / "kvm")).resolution


def test_a_device_that_one_may_not_open_is_for_its_group(tmp_path: Path):
    device = tmp_path / "kvm"
    device.touch(mode=0o000)
    if os.geteuid() == 0:
        tmp_path.chmod(0o755)
        os.chmod(tmp_path.parent, 0o755)
        os.seteuid(65534)
    try:
        assert "usermod -aG kvm" in said(device=str(device)).resolution
    finally:
        os.seteuid(os.getuid())


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_that_is_not_kvm_is_never_a_yes(device: str):
    assert "no virtual machine" in said(device=device).brief


def test_a_kvm_that_runs_only_kernels_made_for_it_is_never_a_yes(tmp_path: Path):
    if not os.access(kvm.DEVICE, os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/kvm here that could be opened")
    assert "made for it" in said(paravirtual=str(tmp_path)).brief
