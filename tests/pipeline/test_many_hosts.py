"""Hosts in network namespaces whose cables are pulled: what they make is whole, right and put once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers import ROOT


@pytest.mark.slow
def test_hosts_without_network_for_20_seconds_lose_nothing() -> None:
    program = [sys.executable, ROOT / "scripts" / "many_hosts.py", "--pictures", "60", "--slower", "2"]
    ran = subprocess.run([str(word) for word in program], capture_output=True, text=True, check=False, timeout=600)
    if ran.returncode == 77:
        pytest.skip(ran.stdout.strip())
    assert ran.returncode == 0, ran.stdout + ran.stderr
