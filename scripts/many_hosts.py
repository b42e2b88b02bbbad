"""Proves that hosts share a bucket through a network that breaks: what they make is whole, right and put once.

    python scripts/many_hosts.py --hosts 3 --pictures 120 --cut 20          # Linux, as root

A host is a network namespace with process numbers, a name, memory files, a home and a temporary folder of its own; all
else it can only read. A bridge joins them to an S3 server (moto), which counts the puts that it has accepted. The cable
of one host is pulled, and later that of the server. It ends with an error if an output is missing, differs from that of
one undisturbed process or was put twice, if an exit code does not tell the truth, or if anything is left. It prints how
many pictures were computed twice. Where it cannot run it says why and ends with 77.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers import pictures, save_nearest  # noqa: E402
from tests.storage.object_store import Store  # noqa: E402

SKIPPED = 77
APART = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A process in namespaces of its own. Those of the first one hold all others, and end with it."""
SERVER, PORT = "10.77.0.1", 5000

ONE_AT_A_TIME = ("-j", "1:1:1")
"""So that cables are pulled in the middle, whatever cores there are."""

HOST = """
hostname "$1"
mount -t tmpfs tmpfs "$2" && mount -t tmpfs tmpfs /dev/shm || exit 70
for place in "$(findmnt -n -o TARGET -T "$4")" /; do mount -o remount,bind,ro "$place" || exit 70; done
mkdir "$2/home" "$2/tmp" "$2/cache"
export HOME="$2/home" TMPDIR="$2/tmp" SR_UPSCALE_CACHE="$2/cache"
read cable
ip link set lo up && ip addr add "$3/24" dev eth0 && ip link set eth0 up && ip route add default dev eth0 || exit 70
shift 4
"$@"
code=$?
[ -z "$(ls -A "$TMPDIR")" ] || exit 71
exit $code
"""
"""What a host does: name, own folder, address, a path that it may only read, command."""


def ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True)


class Counted:
    """An S3 server that counts accepted puts by key, one write at a time, as the real one has it.

    Args:
        app: The server.
        slower_s: Seconds more for each put of a result.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], slower_s: float) -> None:
        self.app, self.slower_s = app, slower_s
        self.puts: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()
        self._one = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, key = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix("/pics/")

        def count(status: str, headers: Any, *more: Any) -> Any:
            (self.puts if status.startswith("200") else self.refused)[key] += 1
            return start(status, headers, *more)

        if method != "PUT":
            return self.app(environ, start)
        if key.startswith("large/"):
            time.sleep(self.slower_s)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # it may never come
        environ["wsgi.input"] = io.BytesIO(body)
        with self._one:
            return list(self.app(environ, count))

    def made(self) -> int:
        return sum(1 for key in list(self.puts) if key.startswith("large/"))


def lay_cables() -> None:
    """Makes the bridge, and the server's address on it."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "bridge", "type", "bridge")
    ip("addr", "add", f"{SERVER}/24", "dev", "bridge")
    ip("link", "set", "bridge", "up")
    ip("route", "add", "default", "dev", "bridge")


def start_host(number: int, folder: Path, command: list[str]) -> subprocess.Popen[str]:
    """Starts a host ``hostN`` with the address 10.77.0.(N+10), joined to the bridge by a cable of its name."""
    name, own = f"host{number}", folder / "own"
    words = [*APART, "--uts", "sh", "-c", HOST, "sh", name, own, f"10.77.0.{10 + number}", folder, *command]
    host = subprocess.Popen([str(word) for word in words], stdin=-1, stdout=-1, stderr=-1, text=True)
    while os.readlink(f"/proc/{host.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.1)
    ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", host.pid)
    ip("link", "set", name, "master", "bridge", "up")
    assert host.stdin is not None
    host.stdin.write("\n")
    host.stdin.flush()
    return host


def cut(cable: str, seconds: float) -> None:
    ip("link", "set", cable, "down")
    time.sleep(seconds)
    ip("link", "set", cable, "up")


def undisturbed(folder: Path, count: int) -> tuple[Path, Path, list[str]]:
    """Makes pictures, and what one process makes of them; returns both folders, and the command without its folders."""
    source, alone = pictures(folder / "in", *(f"{number:04}.png" for number in range(count))), folder / "alone"
    (folder / "own").mkdir()
    weights = save_nearest(folder / "nearest-x2.safetensors")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    batch = [sys.executable, "-m", "sr_upscale", "batch", "-n", str(weights), "--json"]
    subprocess.run([*batch, str(source), "-o", str(alone)], check=True, stdout=-1)
    return source, alone, batch


def prove(folder: Path, *, hosts: int, count: int, cut_s: float, slower_s: float) -> list[str]:
    """Does one bucket with several hosts; returns what is wrong with the result."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    lay_cables()
    counted = Counted(DomainDispatcherApplication(create_backend_app), slower_s)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("0.0.0.0", PORT, counted, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    os.environ |= {"AWS_ENDPOINT_URL": f"http://{SERVER}:{PORT}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {f"AWS_{name}": "test" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    source, alone, batch = undisturbed(folder, count)
    store = Store(port=PORT, bucket="pics")
    store.ask("PUT", "")
    for path in source.iterdir():
        store.put(f"scans/{path.name}", path.read_bytes())

    begin = time.monotonic()
    running = [
        start_host(each, folder, [*batch, "s3://pics/scans", "-o", "s3://pics/large", *ONE_AT_A_TIME])
        for each in range(hosts)
    ]
    said: dict[int, tuple[str, str]] = {}
    readers = [
        threading.Thread(target=lambda number=number, host=host: said.update({number: host.communicate()}))
        for number, host in enumerate(running)
    ]
    for reader in readers:
        reader.start()
    cuts: list[str] = []
    wrong: list[str] = []
    for share, cable in ((0.2, "host0"), (0.6, "bridge")):
        while counted.made() < share * count and all(host.poll() is None for host in running):
            time.sleep(0.1)
        if any(host.poll() is not None for host in running):
            wrong.append(f"a host had ended before the cable of {cable} was pulled")
            break
        before = counted.made()
        cut(cable, cut_s)
        cuts.append(f"{cable} at {before}, {counted.made() - before} made meanwhile")
    for reader in readers:
        reader.join()
    seconds = time.monotonic() - begin

    keys = {f"large/{path.name}": path for path in alone.glob("*.png")}
    wrong += [f"{key} was put {counted.puts[key]} times" for key in keys if counted.puts[key] != 1]
    there = [key for key in store.present() if key.startswith("large/")]
    wrong += [f"{key} is not there" for key in keys if key not in there]
    wrong += [f"{key} is left" for key in there if key not in keys]
    wrong += [f"{key} differs" for key in there if key in keys and store.get(key) != keys[key].read_bytes()]
    codes = [host.returncode for host in running]
    if codes != [0] * hosts:
        wrong.append(f"exit codes {codes}: {[err for _, err in said.values()]}")
    shares = [
        sum(json.loads(line).get("status") == "done" for line in said[number][0].splitlines())
        for number in range(hosts)
    ]
    if sum(shares) != count:
        wrong.append(f"{shares} of {count} pictures said to be done")
    again = sum(count for key, count in counted.refused.items() if key in keys)
    sys.stdout.write(
        f"{count} pictures in {seconds:.1f} s, by host {shares}, exit codes {codes}, results refused: {again}; "
        f"without cable for {cut_s:.0f} s: {'; '.join(cuts)}\n"
    )
    return wrong


def why_not() -> str | None:
    """Says what is missing here, None where nothing is."""
    missing = [name for name in ("ip", "unshare", "mount", "findmnt", "hostname") if shutil.which(name) is None]
    missing += [name for name in ("moto", "flask_cors", "s3fs") if importlib.util.find_spec(name) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    probe = (
        "ip link add bridge type bridge && ip link add host0 type veth peer name eth0 && mount -t tmpfs tmpfs /dev/shm"
    )
    ran = subprocess.run([*APART, "--uts", "sh", "-c", probe], capture_output=True, text=True, check=False)
    return None if ran.returncode == 0 else f"needs root and namespaces: {ran.stderr.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--cut", type=float, default=20.0, help="seconds for which a cable is pulled")
    parser.add_argument("--slower", type=float, default=1.0, help="seconds more for each put of a result")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        if (reason := why_not()) is not None:
            sys.stdout.write(f"skipped: {reason}\n")
            sys.exit(SKIPPED)
        os.execvp(APART[0], [*APART, sys.executable, *sys.argv, "--inside"])
    with tempfile.TemporaryDirectory() as folder:
        wrong = prove(Path(folder), hosts=given.hosts, count=given.pictures, cut_s=given.cut, slower_s=given.slower)
    for each in wrong:
        sys.stdout.write(f"wrong: {each}\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
