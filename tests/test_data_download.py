"""Downloads, from a server of our own on this machine that misbehaves in every way we know."""
import contextlib
import errno
import hashlib
import http.server
import os
import resource
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
import zipfile

import numpy as np
import pytest
from test_cli_train import SMALL, call
from test_data_layouts import check_cifar, cifar, pack, tiny

from tinyalex.data import DataError, download, find_cifar10, open_dataset, tinyimagenet, web
from tinyalex.data.download import Archive, fetch
from tinyalex.data.tinyimagenet import find_tinyimagenet
from tinyalex.train import console

DATA = np.random.default_rng(0).bytes(300_000)
OLD = np.random.default_rng(1).bytes(300_000)
HALF = len(DATA) // 2
FILE = "cifar-10-binary.tar.gz"


class Site:
    """A server that keeps to `script`, one step for a request, and then serves as it should.

    A step is called with the handler in place of :meth:`serve`. `seen` holds the headers of all
    requests; `data` is what the file is at the moment.
    """

    def __init__(self, data):
        self.data, self.script, self.seen, self.release = data, [], [], threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.seen.append(dict(self.headers))
                step = site.script.pop(0) if site.script else site.serve
                step(self)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def head(self, handler, code, length=None, **headers):
        handler.send_response(code)
        for name, value in {"Content-Length": length, **headers}.items():
            if value is not None:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    def serve(self, handler, upto=None, ranges=True):
        """Send the file, or the range asked for, correctly; break off after byte `upto`."""
        start, asked = 0, handler.headers["Range"]
        if ranges and asked:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.data):
                return self.head(handler, 416, 0)
            size = len(self.data)
            self.head(handler, 206, size - start, Content_Range=f"bytes {start}-{size - 1}/{size}")
        else:
            self.head(handler, 200, len(self.data))
        handler.wfile.write(self.data[start:upto])

    def half(self, handler):
        self.serve(handler, HALF)

    def stalls(self, handler):
        self.half(handler)
        self.release.wait()

    def says(self, code, body=b"", **headers):
        """Return a step that gives this answer and no other."""
        def step(handler):
            self.head(handler, code, **{"length": len(body), **headers})
            handler.wfile.write(body)
        return step


def stand_in(monkeypatch, site, name="cifar10"):
    """Let the table of archives point to `site`, whose present file is the right one."""
    archive = Archive(site.url + download.ARCHIVES[name].file, len(site.data),
                      hashlib.md5(site.data).hexdigest())
    monkeypatch.setattr(download, "ARCHIVES", {**download.ARCHIVES, name: archive})
    return archive


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty $TINYALEX_DATA, and no other place; no waiting between tries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TINYALEX_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("TINYALEX_OFFLINE", raising=False)
    monkeypatch.setattr(download, "PAUSES", (0, 0, 0))
    monkeypatch.setattr(web, "TIMEOUT", 10)
    return tmp_path / "own"


@pytest.fixture
def site(place, monkeypatch):
    site = Site(DATA)
    stand_in(monkeypatch, site)
    yield site
    site.close()


def arrives(place, data=DATA):
    """Check that the archive is fetched whole, and nothing else is left."""
    assert fetch("cifar10") == str(place / FILE)
    assert (place / FILE).read_bytes() == data and os.listdir(place) == [FILE]


def refused(*parts, fn=fetch, name="cifar10"):
    """Check that it is refused in one line with these parts; return the line."""
    with pytest.raises(DataError) as caught:
        fn(name)
    message = str(caught.value)
    assert message.startswith(f"where={name!r}: ") and "\n" not in message
    for part in parts:
        assert part in message, message
    return message


def part_of(place, data):
    """Leave what a process that was killed leaves."""
    place.mkdir(exist_ok=True)
    (place / f"{FILE}.part").write_bytes(data)


def kept(place):
    return (place / f"{FILE}.part").read_bytes()


# ---- one archive, as it should be ------------------------------------------------------------

def test_fetched_once_in_one_request(site, place, capsys):
    arrives(place)
    arrives(place)
    assert len(site.seen) == 1
    assert "Range" not in site.seen[0] and site.seen[0]["User-Agent"] == "tinyalex"
    said = capsys.readouterr().err
    assert said == f"fetching {site.url}{FILE} (0 MB) into {place}\n"       # no bar in a file


def test_without_the_variable_it_goes_to_the_cache(site, place, tmp_path, monkeypatch):
    monkeypatch.delenv("TINYALEX_DATA")
    arrives(tmp_path / "home/.cache/tinyalex")
    assert not place.exists()


def test_the_bar_starts_where_the_part_ends(site, place, monkeypatch):
    import tqdm

    bars = set()

    class Bar(tqdm.tqdm):
        def close(self):
            bars.add((self.initial, self.n, self.total))      # tqdm closes twice
            super().close()

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    part_of(place, DATA[:HALF])
    arrives(place)
    assert bars == {(HALF, len(DATA), len(DATA))}


# ---- broken off, and gone on with ------------------------------------------------------------

def test_goes_on_where_it_broke_off(site, place, capsys):
    site.script = [site.half]
    arrives(place)
    first, second = site.seen
    assert "Range" not in first and second["Range"] == f"bytes={HALF}-"
    assert "broke off after 150,000 of 300,000 bytes; trying again" in capsys.readouterr().err


def test_any_number_of_times_as_long_as_something_comes(site, place, monkeypatch):
    pauses = []
    monkeypatch.setattr(download, "PAUSES", (1, 3, 9))
    monkeypatch.setattr(time, "sleep", pauses.append)
    site.script = [lambda handler, upto=upto: site.serve(handler, upto)
                   for upto in range(50_000, 300_000, 50_000)]
    site.script[2:2] = [site.says(503)] * 2
    arrives(place)
    assert pauses == [1, 1, 3, 9, 1, 1, 1] and len(site.seen) == 8


def test_gives_up_when_nothing_comes_and_keeps_the_part(site, place, monkeypatch):
    pauses = []
    monkeypatch.setattr(download, "PAUSES", (1, 3, 9))
    monkeypatch.setattr(time, "sleep", pauses.append)
    site.script = [site.half] + [site.says(503)] * 9
    refused(f"{site.url}{FILE}: the server answers 503 Service Unavailable", "try later",
            f"put it into {place}", "150,000 bytes are kept")
    assert len(site.seen) == 4 and pauses == [1, 3, 9] and kept(place) == DATA[:HALF]
    site.script.clear()
    arrives(place)
    assert site.seen[-1]["Range"] == f"bytes={HALF}-"


def test_a_redirection_is_followed_with_the_range(site, place):
    site.script = [site.half, site.says(302, Location=f"{site.url}elsewhere")]
    arrives(place)
    assert [request.get("Range") for request in site.seen] == [None] + [f"bytes={HALF}-"] * 2


def test_a_server_that_knows_no_ranges_starts_again(site, place):
    site.script = [site.half, lambda handler: site.serve(handler, ranges=False)]
    arrives(place)
    assert len(site.seen) == 2


def test_a_server_without_ranges_that_always_breaks_off_ends(site, place):
    site.script = [lambda handler: site.serve(handler, HALF, ranges=False)] * 99
    refused("broke off after 150,000")
    assert len(site.seen) == 4


def test_a_stalled_server(site, place, monkeypatch, capsys):
    monkeypatch.setattr(web, "TIMEOUT", 0.2)
    site.script, begun = [site.stalls], time.monotonic()
    arrives(place)
    assert time.monotonic() - begun < 4
    assert "nothing came for 0.2 s; trying again" in capsys.readouterr().err
    assert site.seen[1]["Range"] == f"bytes={HALF}-"


def test_a_connection_that_is_reset(site, place):
    def reset(handler):
        site.half(handler)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        os.close(handler.connection.detach())        # now, and with RST in place of FIN

    site.script = [reset, lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrives(place)
    assert len(site.seen) == 3


def test_a_whole_part_needs_no_network(site, place):
    part_of(place, DATA)
    arrives(place)
    assert site.seen == []


def test_a_part_longer_than_the_file_is_of_another_one(site, place):
    part_of(place, DATA + b"x")
    arrives(place)
    assert "Range" not in site.seen[0]


# ---- another file than expected --------------------------------------------------------------

def test_a_file_that_changed_is_started_again_once(site, place, capsys):
    part_of(place, OLD[:HALF])
    arrives(place)
    assert [request.get("Range") for request in site.seen] == [f"bytes={HALF}-", None]
    assert "put together from parts: MD5 " in capsys.readouterr().err


@pytest.mark.parametrize("script, requests", [
    (["serve"], 1),                      # whole, and wrong: there is nothing else to try
    (["half", "serve"], 3),              # put together, and wrong: once more from zero
    (["half", "serve", "half", "serve"], 4)])
def test_a_wrong_checksum_names_both_and_leaves_nothing(site, place, script, requests):
    expected, site.data = download.ARCHIVES["cifar10"].md5, OLD
    site.script = [getattr(site, step) for step in script]
    refused(f"MD5 {hashlib.md5(OLD).hexdigest()}, expected {expected}", "was removed",
            f"put it into {place}")
    assert len(site.seen) == requests and os.listdir(place) == []


@pytest.mark.parametrize("length", [100, 299_999, 300_001, 10**9])
def test_a_length_that_is_not_the_archives(site, place, length):
    site.script = [site.says(200, DATA, length=length)]
    refused(f"offers {length:,} bytes, expected 300,000")
    assert len(site.seen) == 1


def test_no_length_at_all(site, place):
    def endless(handler):
        site.head(handler, 200)
        with contextlib.suppress(OSError):
            while sum(sent) < 2**26:
                sent.append(handler.wfile.write(bytes(2**16)))

    site.script = [site.says(200, DATA, length=None)]
    arrives(place)
    (place / FILE).unlink()
    site.script = [site.says(200, DATA[:HALF], length=None)]
    arrives(place)
    (place / FILE).unlink()
    site.script, sent = [endless], []
    refused("sends more than the expected 300,000 bytes")
    assert os.listdir(place) == [] and sum(sent) < 2**25


@pytest.mark.parametrize("range", ["bytes 0-299999/300000", "bytes 150001-299999/300000",
                                   "nonsense", None])
def test_another_range_than_asked_for(site, place, range):
    part_of(place, DATA[:HALF])
    site.script = [site.says(206, DATA[HALF:], Content_Range=range)]
    arrives(place)
    assert len(site.seen) == 2 and "Range" not in site.seen[1]


def test_a_range_of_a_file_of_another_size(site, place):
    part_of(place, DATA[:HALF])
    site.script = [site.says(206, DATA[HALF:], Content_Range="bytes 150000-299999/300001")]
    refused("offers 300,001 bytes, expected 300,000", "150,000 bytes are kept")
    assert kept(place) == DATA[:HALF]
    site.script = [site.says(206, DATA[HALF:], Content_Range="bytes 150000-299999/*")]
    arrives(place)


def test_a_range_that_the_server_has_not(site, place):
    part_of(place, DATA[:HALF])
    site.script = [site.says(416)]
    arrives(place)
    assert "Range" not in site.seen[1]


@pytest.mark.parametrize("type, body", [
    ("text/html; charset=utf-8", b"Log in to go on."),
    ("application/octet-stream", b"\n<!DOCTYPE html><p>Log in to go on.")])
@pytest.mark.parametrize("begun", [0, HALF])
def test_a_page_in_place_of_the_archive(site, place, type, body, begun):
    if begun:
        part_of(place, DATA[:begun])
    site.script = [site.says(200, body, Content_Type=type)]
    refused("a page of HTML", "proxy or a login")
    assert len(site.seen) == 1
    assert kept(place) == DATA[:begun] if begun else os.listdir(place) == []


def test_an_empty_answer_costs_nothing(site, place):
    part_of(place, DATA[:HALF])
    site.script = [site.says(200, length=len(DATA))]
    arrives(place)
    assert site.seen[1]["Range"] == f"bytes={HALF}-"


@pytest.mark.parametrize("code, words", [(404, "404 Not Found"), (403, "403 Forbidden"),
                                         (407, "407 Proxy Authentication Required"), (499, "499;")])
def test_an_answer_that_no_patience_mends(site, place, code, words):
    site.script = [site.says(code, b"<html>")]
    refused(f"the server answers {words}")
    assert len(site.seen) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503])
def test_an_answer_that_patience_may_mend(site, place, code):
    site.script = [site.says(code, b"<html>")] * 3
    arrives(place)


def test_what_is_no_http(site, place):
    site.script = [lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")] * 4
    refused("SSH-2.0")
    assert len(site.seen) == 4


# ---- no network ------------------------------------------------------------------------------

@pytest.mark.parametrize("error", [
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    OSError(errno.ENETUNREACH, "Network is unreachable")])
def test_no_network_is_said_at_once_with_what_to_do(site, place, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    monkeypatch.setattr(time, "sleep", fail)
    refused(f"not found in {place}, data, ", f"no network to fetch it ({error.strerror})",
            f"put {FILE} ({site.url}{FILE}) or its folder into one of them", "TINYALEX_DATA")
    assert os.listdir(place) == []


def test_a_network_that_goes_away_in_between_may_come_back(site, place, monkeypatch):
    connect, calls = socket.create_connection, []

    def flaky(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", flaky)
    site.script = [site.half]
    arrives(place)
    assert len(calls) == 3


def test_nobody_listens(place, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        archive = Archive(f"http://127.0.0.1:{probe.getsockname()[1]}/{FILE}", 1, "")
        monkeypatch.setattr(download, "ARCHIVES", {"cifar10": archive})
        refused("Connection refused", "try later")


def test_a_certificate_that_is_not_trusted(site, place, monkeypatch):
    problem = ssl.SSLCertVerificationError(1, "certificate verify failed")
    problem.verify_message = "self-signed certificate"
    calls = []

    def fail(*arguments, **options):
        calls.append(1)
        raise urllib.error.URLError(problem)

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    refused("the server's certificate: self-signed certificate")
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["cifar10", "tinyimagenet"])
def test_offline_forbids_it(site, place, monkeypatch, name):
    stand_in(monkeypatch, site, "tinyimagenet")
    monkeypatch.setenv("TINYALEX_OFFLINE", "1")
    refused("TINYALEX_OFFLINE forbids fetching it", site.url, "or set TINYALEX_DATA",
            fn=lambda name: open_dataset(name, 32), name=name)
    assert site.seen == [] and not place.exists()
    monkeypatch.setenv("TINYALEX_OFFLINE", "0")
    with pytest.raises(DataError):                   # fetched, but it is noise
        open_dataset(name, 32)
    assert len(site.seen) == 1


@pytest.mark.parametrize("find, name", [(find_cifar10, "cifar10"),
                                        (find_tinyimagenet, "tinyimagenet")])
def test_looking_for_it_fetches_nothing(site, place, monkeypatch, find, name):
    stand_in(monkeypatch, site, name)
    message = refused("not found in", fn=lambda name: find(), name=name)
    assert site.seen == [] and "OFFLINE" not in message


# ---- the disk --------------------------------------------------------------------------------

def test_a_disk_that_takes_no_more(site, place):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        refused(f"cannot write to {place}: File too large; it needs 0 MB")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(site.seen) == 1 and kept(place) == DATA[:100_000]
    arrives(place)
    assert site.seen[1]["Range"] == "bytes=100000-"


def test_a_place_that_is_no_folder(site, place, monkeypatch):
    place.write_text("a file")
    refused(f"cannot write to {place}: File exists", "set TINYALEX_DATA to another folder")
    monkeypatch.setenv("TINYALEX_DATA", f"{place}/below")
    refused(f"cannot write to {place}/below: Not a directory")
    assert site.seen == []


def test_a_folder_without_permission(site, place):
    place.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)                            # root may write everywhere, nobody nowhere
    try:
        refused(f"cannot write to {place}: Permission denied")
    finally:
        os.seteuid(user)


def test_the_name_is_taken_when_the_bytes_are_on_the_disk(site, place, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"),
        fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("name"), replace(a, b)))
    arrives(place)
    assert calls == ["file", "name", "folder"]


# ---- several processes, and the end of one ---------------------------------------------------

CHILD = """
import sys
from tinyalex.data import download, open_dataset
from tinyalex.train import console
url, size, md5 = sys.argv[1:]
download.ARCHIVES["cifar10"] = download.Archive(url, int(size), md5)
sys.exit(console.run(lambda argv: print(download.fetch("cifar10")), "train_imagenet.py"))
"""


def child():
    return subprocess.Popen([sys.executable, "-W", "error", "-c", CHILD,
                             *map(str, download.ARCHIVES["cifar10"])], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_a_killed_process_is_gone_on_with(site, place):
    site.script = [site.stalls]
    with child() as process:
        wait_for(lambda: web.length_of(place / f"{FILE}.part") == HALF)
        process.kill()
        process.communicate(timeout=20)
    assert kept(place) == DATA[:HALF]
    arrives(place)
    assert site.seen[1]["Range"] == f"bytes={HALF}-"


def test_ctrl_c_keeps_the_part(site, place):
    site.script = [site.stalls]
    with child() as process:
        wait_for(lambda: web.length_of(place / f"{FILE}.part") == HALF)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == console.INTERRUPTED and out == ""
    assert err.splitlines()[1:] == [f"150,000 bytes of {FILE} are kept for the next time",
                                    "train_imagenet.py: interrupted"]
    arrives(place)
    assert site.seen[1]["Range"] == f"bytes={HALF}-"


def test_of_two_processes_one_fetches_and_the_other_waits(site, place):
    def slow(handler):
        site.release.wait()
        site.serve(handler)

    site.script = [slow]
    with child() as first:
        wait_for(lambda: site.seen)
        with child() as second:
            assert second.stderr.readline() == \
                f"waiting for another process that writes to {place}\n"
            site.release.set()
            results = [process.communicate(timeout=20) for process in (first, second)]
    assert [out for out, _ in results] == [f"{place / FILE}\n"] * 2 and results[1][1] == ""
    assert len(site.seen) == 1
    arrives(place)


def test_one_that_waited_goes_on_where_the_other_was_killed(site, place):
    site.script = [site.stalls]
    with child() as first:
        wait_for(lambda: web.length_of(place / f"{FILE}.part") == HALF)
        with child() as second:
            assert "waiting" in second.stderr.readline()
            first.kill()
            out, _ = second.communicate(timeout=20)
        first.communicate(timeout=20)
    assert out == f"{place / FILE}\n" and site.seen[1]["Range"] == f"bytes={HALF}-"
    arrives(place)


@pytest.mark.parametrize("locks", ["none on this system", "none on this file system"])
def test_without_locks_each_process_has_a_part_of_its_own(site, place, monkeypatch, locks):
    def fail(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    if locks == "none on this system":
        monkeypatch.setattr(download, "fcntl", None)
    else:
        monkeypatch.setattr(download.fcntl, "flock", fail)
    part_of(place, OLD[:HALF])                       # another process is at work on it
    site.script = [site.says(404)]
    refused("404")
    fetch("cifar10")
    assert (place / FILE).read_bytes() == DATA and kept(place) == OLD[:HALF]
    assert "Range" not in site.seen[1]


# ---- the two data sets -----------------------------------------------------------------------

def test_cifar10_from_the_network_to_pictures(site, place, tmp_path, monkeypatch):
    pictures = cifar(tmp_path / "source")
    pack(tmp_path / "source", tmp_path / "packed.tar.gz")
    site.data = (tmp_path / "packed.tar.gz").read_bytes()
    stand_in(monkeypatch, site)
    check_cifar("cifar10", pictures)
    check_cifar("cifar10", pictures)
    assert len(site.seen) == 1


def test_what_is_in_one_of_the_places_is_not_fetched(site, place, tmp_path):
    check_cifar("cifar10", cifar(tmp_path / "data/cifar-10-batches-bin"))
    assert site.seen == [] and not place.exists()


def test_a_mistake_is_one_line_and_exit_code_2(site, place, capsys):
    site.script = [site.says(404)]
    assert console.run(lambda argv: open_dataset("cifar10", 32), "train_imagenet.py") == 2
    fetching, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"train_imagenet.py: --data 'cifar10': {site.url}{FILE}: the server")


TINY = "tiny-imagenet-200"


def zipped(path, members):
    """Write a zip of (name or ZipInfo, bytes) pairs; return its bytes."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")              # of a name that occurs twice
        for name, data in members:
            archive.writestr(name, data)
    return path.read_bytes()


def tiny_members(tmp_path):
    root = tiny(tmp_path / "source")
    return [(f"{TINY}/{path.relative_to(root)}", path.read_bytes())
            for path in sorted(root.rglob("*")) if path.is_file()]


def test_tiny_imagenet_from_the_network_to_pictures(site, place, tmp_path, monkeypatch):
    site.data = zipped(tmp_path / "packed.zip", tiny_members(tmp_path))
    stand_in(monkeypatch, site, "tinyimagenet")
    site.script = [lambda handler: site.serve(handler, len(site.data) // 2)]
    for _ in range(2):
        train, val = open_dataset("tinyimagenet", 8)
        expected = open_dataset(tmp_path / "source", 8)
        for one, other in zip((train, val), expected, strict=True):
            assert one.labels.tolist() == other.labels.tolist() and one.classes == other.classes
            assert all(np.array_equal(one.picture(i), other.picture(i)) for i in range(len(one)))
    assert len(site.seen) == 2 and train.name(0).startswith(f"{place}/{TINY}/train/")
    assert sorted(os.listdir(place)) == [TINY, f"{TINY}.zip"]


@pytest.mark.parametrize("name", ["cifar10", "tinyimagenet"])
def test_the_command_trains_on_what_it_fetched(site, place, tmp_path, monkeypatch, capsys, name):
    """And is resumed from another folder: the name is no path."""
    if name == "cifar10":
        cifar(tmp_path / "source")
        pack(tmp_path / "source", tmp_path / "packed.tar.gz")
        site.data = (tmp_path / "packed.tar.gz").read_bytes()
    else:
        site.data = zipped(tmp_path / "packed.zip", tiny_members(tmp_path))
    stand_in(monkeypatch, site, name)
    assert call("--data", name, *SMALL, "--batch-size", 2, "--max-steps", 2,
                "--output-dir", "run") == 0
    out, err = capsys.readouterr()
    assert f"fetching {site.url}" in err and "top-1 error" in out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("--resume", tmp_path / "run", "--test-only") == 0
    assert len(site.seen) == 1 and os.listdir() == []


def unpacked(place):
    return find_tinyimagenet() == str(place / TINY) and sorted(os.listdir(place)) == [
        TINY, f"{TINY}.zip"]


@pytest.mark.parametrize("where", ["own", "data", "home/.cache/tinyalex"])
def test_an_archive_put_there_by_hand_is_unpacked_once(site, place, tmp_path, monkeypatch, where):
    zipped(tmp_path / where / f"{TINY}.zip", tiny_members(tmp_path))
    found = find_tinyimagenet()
    assert os.path.abspath(found) == str(tmp_path / where / TINY) and site.seen == []
    monkeypatch.setattr(tinyimagenet, "_extract", None)
    assert find_tinyimagenet() == found
    monkeypatch.setenv("TINYALEX_DATA", found)       # or the folder itself
    assert find_tinyimagenet() == found


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("name, data", [
    ("../outside", b""), (f"{TINY}/../../outside", b""), ("/tmp/outside", b""), ("outside", b""),
    (f"{TINY}/..\\outside", b""), (f"{TINY}/C:outside", b""), (f"{TINY}//outside", b""),
    (link(f"{TINY}/train/outside"), b"/etc"), (f"{TINY}/wnids.txt", b"twice"),
    (f"{TINY}/bomb", bytes(2**24 + 1)),
], ids=lambda value: getattr(value, "filename", value) if not isinstance(value, bytes) else "")
def test_a_hostile_archive_leaves_no_trace(place, tmp_path, name, data):
    zipped(place / f"{TINY}.zip", [*tiny_members(tmp_path), (name, data)])
    before = sorted(tmp_path.rglob("*"))
    refused(f"{TINY}.zip holds '", "nothing was unpacked", fn=lambda name: find_tinyimagenet(),
            name="tinyimagenet")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("limit, value", [("MAX_FILES", 5), ("MAX_BYTES", 1000)])
def test_an_archive_of_too_much(place, tmp_path, monkeypatch, limit, value):
    members = tiny_members(tmp_path)
    zipped(place / f"{TINY}.zip", members)
    monkeypatch.setattr(tinyimagenet, limit, value)
    refused(f"holds {len(members)} files of {sum(len(data) for _, data in members):,} bytes in all",
            fn=lambda name: find_tinyimagenet(), name="tinyimagenet")
    assert os.listdir(place) == [f"{TINY}.zip"]


def test_damaged_archives(place, tmp_path):
    whole = zipped(place / f"{TINY}.zip", tiny_members(tmp_path))
    rng = np.random.default_rng(0)
    flipped = []
    for at in rng.integers(0, len(whole), 150):      # a byte anywhere, directory included
        data = bytearray(whole)
        data[at] ^= 1 << rng.integers(8)
        flipped.append(bytes(data))
    for data in (b"", whole[:1000], whole[:-1], whole[100:], *flipped):
        (place / f"{TINY}.zip").write_bytes(data)
        try:
            tinyimagenet.unpack(str(place / f"{TINY}.zip"))
        except DataError as problem:
            assert "\n" not in str(problem) and os.listdir(place) == [f"{TINY}.zip"]
        else:                                        # a date, or the like
            assert sorted(os.listdir(place)) == [TINY, f"{TINY}.zip"]
            for name, content in tiny_members(tmp_path):
                assert data in flipped and (place / name).read_bytes() == content
            subprocess.run(["rm", "-r", place / TINY], check=True)


def test_an_archive_under_lock_and_key(place, tmp_path):
    data = bytearray(zipped(place / f"{TINY}.zip", tiny_members(tmp_path)))
    data[data.index(b"PK\1\2") + 8] |= 1             # the first of its directory's rows
    (place / f"{TINY}.zip").write_bytes(data)
    refused("holds 'tiny-", fn=lambda name: find_tinyimagenet(), name="tinyimagenet")


def test_an_archive_that_ends_in_the_middle_of_a_file(place):
    data = bytearray(zipped(place / f"{TINY}.zip", [(f"{TINY}/wnids.txt", b"")]))
    row = data.index(b"PK\1\2")
    data[row + 10:row + 12] = bytes(2)                # stored,
    data[row + 20:row + 28] = b"\0\0\1\0" * 2         # and 65,536 bytes long
    (place / f"{TINY}.zip").write_bytes(data)
    refused(f"{TINY}.zip is damaged", fn=lambda name: find_tinyimagenet(), name="tinyimagenet")
    assert os.listdir(place) == [f"{TINY}.zip"]


def test_what_another_process_unpacked_meanwhile_is_taken(place, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def waits(folder):
        tiny(place / TINY)
        yield ""

    zipped(place / f"{TINY}.zip", tiny_members(tmp_path))
    monkeypatch.setattr(tinyimagenet, "alone", waits)
    monkeypatch.setattr(tinyimagenet, "_extract", None)
    assert unpacked(place)


def test_an_archive_of_something_else(place):
    zipped(place / f"{TINY}.zip", [(f"{TINY}/readme", b"")])
    refused("has no wnids.txt, train/ and val/", fn=lambda name: find_tinyimagenet(),
            name="tinyimagenet")
    assert os.listdir(place) == [f"{TINY}.zip"]


def test_what_a_killed_process_unpacked_is_cleared_away(place, tmp_path):
    zipped(place / f"{TINY}.zip", tiny_members(tmp_path))
    (place / f".{TINY}.part/{TINY}/train").mkdir(parents=True)
    (place / f".{TINY}.part/{TINY}/train/stray.png").write_bytes(b"")
    assert unpacked(place) and not (place / TINY / "train/stray.png").exists()


def test_ctrl_c_while_unpacking_leaves_nothing(place, tmp_path, monkeypatch):
    zipped(place / f"{TINY}.zip", tiny_members(tmp_path))

    def interrupt():
        assert os.listdir(place / f".{TINY}.part/{TINY}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "sync", interrupt)
        find_tinyimagenet()
    assert os.listdir(place) == [f"{TINY}.zip"] and unpacked(place)


def test_a_folder_in_the_way(place, tmp_path):
    zipped(place / f"{TINY}.zip", tiny_members(tmp_path))
    (place / TINY / "train").mkdir(parents=True)
    refused(f"{place / TINY} lacks wnids.txt", "move the folder away",
            fn=lambda name: find_tinyimagenet(), name="tinyimagenet")
    assert os.listdir(place / TINY) == ["train"]


def test_a_disk_too_full_to_unpack(place, tmp_path):
    zipped(place / f"{TINY}.zip", [*tiny_members(tmp_path), (f"{TINY}/large", bytes(200_000))])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        refused(f"cannot write to {place}: File too large; it needs 500 MB",
                fn=lambda name: find_tinyimagenet(), name="tinyimagenet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(place) == [f"{TINY}.zip"]
