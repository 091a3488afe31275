"""Prints the recorded times of each camera topic, read with other people's readers.

    python times.py RECORDING

JSON: {topic: [[log time, header stamp], ...]} in nanoseconds, in the order of log times. A stamp is
null where the message has none. Nothing for a recording that the readers cannot open.
"""
import json
import struct
import sys
from pathlib import Path

from mcap.reader import NonSeekingReader
from rosbags.highlevel import AnyReader

NAMES = ("Image", "CompressedImage", "CompressedVideo", "RawImage")


def is_camera(kind):
    return kind.replace("::", "/").replace(".", "/").split("/")[-1] in NAMES


def cdr(data):
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(order + "iI", data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def ros1(data):
    seconds, nanoseconds = struct.unpack_from("<II", data, 4)
    return seconds * 1_000_000_000 + nanoseconds


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 1:
            value, at = data[at : at + 8], at + 8
        elif key & 7 == 5:
            value, at = data[at : at + 4], at + 4
        else:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def protobuf(data):
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            time = dict(fields(value))
            return time.get(1, 0) * 1_000_000_000 + time.get(2, 0)
    return 0


def as_json(data):
    time = json.loads(data).get("timestamp") or {}
    return time.get("sec", 0) * 1_000_000_000 + time.get("nsec", time.get("nanosec", 0))


READERS = {"cdr": cdr, "ros1": ros1, "protobuf": protobuf, "json": as_json}


def mcap_file(path):
    with open(path, "rb") as file:
        reader = NonSeekingReader(file, validate_crcs=False)
        for schema, channel, message in reader.iter_messages(log_time_order=False):
            if schema is None or not is_camera(schema.name):
                continue
            encoding = "ros1" if schema.encoding == "ros1msg" else channel.message_encoding
            yield channel.topic, message.log_time, READERS.get(encoding), message.data


def bag(path):
    with AnyReader([path]) as reader:
        read = cdr if reader.is2 else ros1
        cameras = [c for c in reader.connections if is_camera(c.msgtype)]
        for connection, time, data in reader.messages(connections=cameras):
            yield connection.topic, time, read, data


def main():
    path = Path(sys.argv[1])
    found = {}
    try:
        for topic, time, read, data in (mcap_file if path.suffix == ".mcap" else bag)(path):
            try:
                stamp = (read(bytes(data)) if read else 0) or None
            except (struct.error, ValueError, IndexError):
                stamp = None
            found.setdefault(topic, []).append([time, stamp])
    except Exception as error:  # what was read before the damage counts
        print(f"{path}: {error}", file=sys.stderr)
    for times in found.values():
        times.sort(key=lambda pair: pair[0])
    json.dump(found, sys.stdout)


main()
