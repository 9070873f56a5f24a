#!/usr/bin/env python3
"""Reads an archive by docs/format.md alone: Python's standard library and the `zstd` program.

Verifies every digest, compares the index with the tar, and prints the digest of the tree.
"""
import hashlib
import io
import struct
import subprocess
import sys
import tarfile


def check(holds, what):
    if not holds:
        sys.exit(f"wrong: {what}")


def decompress(data):
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout


def sha256(data):
    return hashlib.sha256(data).digest()


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        check(self.at + length <= len(self.data), "it ends too early")
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7f) << shift
            if byte < 0x80:
                check(byte or not shift, "a number is not in its shortest form")
                return value
            shift += 7

    def signed(self):
        number = self.number()
        return number >> 1 if number % 2 == 0 else -(number >> 1) - 1

    def bytes(self):
        return self.take(self.number())

    def more(self):
        return self.at < len(self.data)


def read_index(data):
    frames, = struct.unpack("<I", data[-9:-5])
    check(data[-4:] == bytes.fromhex("b1ea928f"), "no seek table")
    table = len(data) - (8 + 8 * frames + 9)
    check(data[table:table + 4] == bytes.fromhex("5e2a4d18"), "no skippable frame of the seek table")
    footer = data[table - 96:table]
    check(footer[:8] == b"CUTOVER\x01", "no footer")
    offset, size, plain = struct.unpack("<QII", footer[8:24])
    length, = struct.unpack("<Q", footer[56:64])
    check(offset + size + 96 == table and footer[64:] == bytes(32), "footer")
    check(data[length:length + 4] == bytes.fromhex("5b2a4d18"), "no skippable frame of the index")
    check(struct.unpack("<I", data[length + 4:length + 8])[0] == table - length - 8, "length of the index")
    compressed = data[offset:offset + size]
    check(sha256(compressed) == footer[24:56], "digest of the root")
    root = decompress(compressed)
    check(len(root) == plain, "length of the root")
    return length, root, offset, frames


def read_page(data, cursor):
    kind, items, files = cursor.take(1)[0], cursor.number(), cursor.number()
    first = cursor.bytes()
    offset, size, plain = cursor.number(), cursor.number(), cursor.number()
    digest = cursor.take(32)
    check(sha256(data[offset:offset + size]) == digest, "digest of a page")
    page = decompress(data[offset:offset + size])
    check(len(page) == plain, "length of a page")
    return (kind, items, files, first, page), (offset, offset + size)


def read_entries(page):
    cursor, last = Cursor(page), b""
    while cursor.more():
        kind, shared = cursor.take(1)[0], cursor.number()
        last = last[:shared] + cursor.bytes()
        entry = {"kind": kind, "path": last}
        entry["mode"], entry["uid"], entry["gid"] = cursor.number(), cursor.number(), cursor.number()
        entry["mtime"] = cursor.signed(), cursor.number()
        entry["xattrs"] = [(cursor.bytes(), cursor.bytes()) for _ in range(cursor.number())]
        entry["first"] = b""
        if kind == 2:
            entry["size"], entry["generation"], entry["content"] = cursor.number(), cursor.number(), cursor.take(32)
        elif kind == 3:
            entry["target"] = cursor.bytes()
        elif kind == 4:
            entry["size"], entry["content"], entry["first"] = cursor.number(), cursor.take(32), cursor.bytes()
        else:
            check(kind == 1, "kind of an entry")
        yield entry


def tree_digest(entries):
    digest = hashlib.sha256()
    for entry in entries:
        digest.update({1: b"d", 2: b"f", 3: b"l", 4: b"f"}[entry["kind"]] + entry["path"])
        seconds, nanoseconds = entry["mtime"]
        digest.update(b"\0%o\0%d\0%d\0%d.%09d\0" % (entry["mode"], entry["uid"], entry["gid"], seconds, nanoseconds))
        if entry["kind"] in (2, 4):
            digest.update(b"%d\0" % entry["size"] + entry["content"])
        if entry["kind"] == 3:
            digest.update(entry["target"] + b"\0")
        digest.update(b"%d\0" % len(entry["xattrs"]))
        for name, value in entry["xattrs"]:
            digest.update(name + b"\0%d\0" % len(value) + value)
        digest.update(entry["first"] + b"\0")
    return digest.hexdigest()


def main():
    data = open(sys.argv[1], "rb").read()
    length, root, root_offset, seekable = read_index(data)
    cursor = Cursor(root)
    check((cursor.number(), cursor.number()) == (1, 1), "format")
    count, files, plain, compressed, largest, frame_count, newest = (cursor.number() for _ in range(7))
    tree = cursor.take(32)
    pages, places = zip(*(read_page(data, cursor) for _ in range(cursor.number())))
    check(not cursor.more() and compressed == length, "the root")
    starts, ends = zip(*sorted(places))
    check(starts + (root_offset,) == (length + 8,) + ends, "pages follow each other")
    entries, frames, locations = [], [], []
    for kind, items, page_files, first, page in pages:
        if kind == 1:
            some = list(read_entries(page))
            check(len(some) == items and some[0]["path"] == first, "a page of metadata")
            check(sum(entry["kind"] == 2 for entry in some) == page_files, "files of a page")
            entries += some
        elif kind == 2:
            page = Cursor(page)
            some = [(page.number(), page.number(), page.take(1)[0], page.take(32)) for _ in range(items)]
            check(not page.more(), "a page of frames")
            frames += some
        else:
            page, location = Cursor(page), 0
            for _ in range(items):
                location += page.signed()
                locations.append(location)
            check(not page.more(), "a page of locations")
    check((len(entries), len(locations), len(frames), seekable) == (count, files, frame_count, len(frames) + 1), "counts")
    check(entries == sorted(entries, key=lambda entry: entry["path"].split(b"/")), "path order")
    at, tar, starts = 0, b"", []
    for size, plain_size, kind, digest in frames:
        check(sha256(data[at:at + size]) == digest, "digest of a frame")
        frame = decompress(data[at:at + size])
        check(len(frame) == plain_size <= largest, "length of a frame")
        starts.append((len(tar), kind))
        tar += frame
        at += size
    check(at == length and tar[-1024:] == bytes(1024), "the end of the frames")
    by_path = {entry["path"]: entry for entry in entries}
    regular = iter(locations)
    for entry in entries:
        if entry["kind"] == 2:
            entry["location"] = next(regular)
    archive = tarfile.open(fileobj=io.BytesIO(tar), format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape")
    seen, sum_of_sizes = 0, 0
    for member in archive:
        entry = by_path[member.name.encode("utf-8", "surrogateescape")]
        check(member.type == {1: b"5", 2: b"0", 3: b"2", 4: b"1"}[entry["kind"]], "type of a member")
        check((member.mode, member.uid, member.gid) == (entry["mode"], entry["uid"], entry["gid"]), "metadata")
        if entry["kind"] == 2:
            content = archive.extractfile(member).read()
            check(len(content) == entry["size"] and sha256(content) == entry["content"], "content")
            start, kind = starts[entry["location"]]
            if kind == 2:
                check(start == member.offset_data, "location of a large file")
            else:
                end = starts[entry["location"] + 1][0]
                check(kind == 1 and start <= member.offset < end, "location of a file")
            sum_of_sizes += len(content)
        seen += 1
    check(seen == count and sum_of_sizes == plain, "members")
    check(newest == max([entry["generation"] for entry in entries if entry["kind"] == 2], default=0), "generation")
    check(tree_digest(entries) == tree.hex(), "digest of the tree")
    print(tree.hex())


main()
