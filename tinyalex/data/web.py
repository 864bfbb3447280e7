"""One try to bring a file over the network, and what can go wrong with it.

A file that is not whole yet is gone on with where the server can (HTTP's Range), and from zero
where it knows no ranges. Whether the beginning was of the same file, the checksum tells in the end.
"""
import contextlib
import hashlib
import os
import re

from .disk import force

TIMEOUT = 20                             # seconds without a byte
BLOCK = 1 << 16                          # bytes


class Failure(Exception):
    """The network's fault, in a few words.

    Attributes
    ----------
    then : {"again", "afresh", "offline", "stop"}
        Another try may help; it may without what is there; there is no network; no try will help.
    """

    def __init__(self, words, then="again"):
        super().__init__(words)
        self.then = then


def attempt(url, size, part):
    """Ask the server once for what `part` lacks.

    Parameters
    ----------
    url : str
    size : int
        Of the whole file, in bytes; nothing of another size is accepted.
    part : str
        Path of the beginning of the file, or of nothing yet. What comes is added to it at once.

    Returns
    -------
    md5 : str
        Of the whole file, which is on the disk now.

    Raises
    ------
    Failure
        The network or the server did something else.
    OSError
        The disk did.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:            # nothing is missing here
    ...     attempt("http://127.0.0.1/", 0, file.name)
    'd41d8cd98f00b204e9800998ecf8427e'
    """
    from tqdm import tqdm

    with open(part, "a+b", buffering=0) as file:     # no buffer: what has come outlives a kill
        file.seek(0)
        digest = hashlib.file_digest(file, _md5)
        have = file.tell()
        if have < size:
            with _ask(url, have) as answer:
                start, block = _begin(answer, size, have)
                if start == 0:
                    have, digest = 0, _md5()
                    file.truncate(0)
                with tqdm(total=size, initial=have, desc=os.path.basename(url), unit="B",
                          unit_scale=True, disable=None, leave=False, dynamic_ncols=True) as bar:
                    while block and have <= size:
                        digest.update(block)
                        have += len(block)
                        bar.update(len(block))
                        while block:                 # a disk may take a part of it
                            block = block[file.write(block):]
                        block = _receive(answer)
            if have < size:
                raise Failure(f"the server broke off after {have:,} of {size:,} bytes")
            if have > size:
                file.truncate(0)
                raise Failure(f"the server sends more than the expected {size:,} bytes", "stop")
        force(file)
    return digest.hexdigest()


def _md5():
    return hashlib.md5(usedforsecurity=False)


def _ask(url, have):
    from urllib.request import Request, urlopen

    request = Request(url, headers={"User-Agent": "tinyalex"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _network():
        return urlopen(request, timeout=TIMEOUT)


def _begin(answer, size, have):
    """Return the byte that the answer starts at, 0 or `have`, and its first block."""
    start, total = 0, answer.length
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            raise Failure("the server gives another range than asked for", "afresh")
        start, total = have, None if found[2] == "*" else int(found[2])
    block = _receive(answer)
    if answer.headers.get_content_type() == "text/html" or (
            start == 0 and block.lstrip().startswith(b"<")):
        raise Failure("a page of HTML comes instead of the archive (is there a proxy or a login in "
                      "between?)", "stop")
    if total not in (None, size):
        raise Failure(f"the server offers {total:,} bytes, expected {size:,}", "stop")
    if not block:
        raise Failure("the server broke off before the first byte")
    return start, block


def _receive(answer):
    with _network():
        return answer.read1(BLOCK)


@contextlib.contextmanager
def _network():
    """Turn whatever goes wrong on the way to the server and back into a Failure."""
    import errno
    import http.client
    import socket
    import ssl
    from urllib.error import HTTPError, URLError

    try:
        yield
    except HTTPError as answer:
        answer.close()
        words = f"the server answers {answer.code} {http.client.responses.get(answer.code, '')}"
        waits = answer.code in (408, 429) or answer.code >= 500
        then = "afresh" if answer.code == 416 else "again" if waits else "stop"
        raise Failure(words.rstrip(), then) from None
    except (OSError, http.client.HTTPException) as problem:
        cause = problem.reason if isinstance(problem, URLError) else problem
        words = " ".join((getattr(cause, "strerror", None) or str(cause)).split())
        if isinstance(cause, TimeoutError):
            raise Failure(f"nothing came for {TIMEOUT} s") from None
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise Failure(f"the server's certificate: {cause.verify_message}", "stop") from None
        nowhere = getattr(cause, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        offline = nowhere or isinstance(cause, socket.gaierror)
        raise Failure(words, "offline" if offline else "again") from None


def length_of(path):
    """Return the bytes of a file, 0 where there is none.

    >>> length_of("no-such-file")
    0
    """
    return os.path.getsize(path) if os.path.isfile(path) else 0
