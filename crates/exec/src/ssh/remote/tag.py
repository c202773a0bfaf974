# The same as tag.pl, for hosts without perl.
import os, re, select, signal, sys, time

step, limit, keep = sys.argv[1], int(sys.argv[2]), sys.argv[3]
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
size = os.fstat(1).st_size
copy = os.open(keep, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if keep else -1
kept = dropped = 0
out = b""
streams = {3: {"tag": "o", "line": b"", "shown": False}, 4: {"tag": "e", "line": b"", "shown": False}}
coming = re.compile(rb"([\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")


def record(tag, text, more):
    global out
    line = b"%d %s%s%s%s\n" % (int(time.time() * 1e6), tag.encode(), step.encode(), b"+" if more else b" ", text)
    if size + len(out) + len(line) <= limit:
        out += line


def write(data):
    """All or nothing: what does not fit on the disk is left out."""
    global size
    done = 0
    try:
        while done < len(data):
            done += os.write(1, data[done:])
    except OSError:
        try:
            os.ftruncate(1, size)
        except OSError:
            pass
        return False
    size += done
    return True


def flush():
    global out, dropped
    if not out:
        return
    data, out = out, b""
    if not write(data):
        dropped += len(data)
    elif dropped:
        record("s", b"%d bytes of log are missing here: they could not be written" % dropped, False)
        note, out = out, b""
        if write(note):
            dropped = 0


def show(s):
    found = coming.search(s["line"])
    whole = found.start() if found else len(s["line"])
    if whole:
        record(s["tag"], s["line"][:whole], True)
        s["line"], s["shown"] = s["line"][whole:], True


def feed(s, data):
    global kept
    if copy >= 0 and s["tag"] == "o" and kept <= 1048576:
        try:
            os.write(copy, data[: 1048577 - kept])
        except OSError:
            pass
        kept += len(data)
    *lines, s["line"] = (s["line"] + data).split(b"\n")
    for line in lines:
        record(s["tag"], line, False)
        s["shown"] = False
    if len(s["line"]) >= 16384:
        show(s)


def finish(s):
    if s["line"] or s["shown"]:
        record(s["tag"], s["line"], False)


while streams:
    half = any(s["line"] for s in streams.values())
    ready = select.select(sorted(streams), [], [], 0 if over else 0.1 if half else 1)[0]
    if not ready and over:
        break
    for fd in ready:
        data = os.read(fd, 65536)
        if data:
            feed(streams[fd], data)
        else:
            finish(streams.pop(fd))
    if not ready:
        for s in streams.values():
            show(s)
    flush()
for s in streams.values():
    finish(s)
flush()
