"""Decodes a video with PyAV, the way data loaders do.

python3 decode.py VIDEO [NS ...]

Writes every picture in the order in which PyAV gives them, then, for each NS, the picture that a
seek to that time leads to: the first one at it or later. A picture is its time in nanoseconds (8
bytes), its width and height (4 bytes each; all little-endian) and its RGB samples.
"""

import struct
import sys

import av


def show(frame, ns):
    picture = frame.reformat(format="rgb24")
    plane = picture.planes[0]
    row, stride, samples = picture.width * 3, plane.line_size, bytes(plane)
    out = sys.stdout.buffer
    out.write(struct.pack("<qII", ns, picture.width, picture.height))
    for y in range(picture.height):
        out.write(samples[y * stride : y * stride + row])


def main(path, seeks):
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        second = 10**9 * stream.time_base
        for frame in container.decode(stream):
            show(frame, round(frame.pts * second))
        for wanted in seeks:
            container.seek(round(wanted / second), stream=stream)
            for frame in container.decode(stream):
                ns = round(frame.pts * second)
                if ns >= wanted:
                    show(frame, ns)
                    break


main(sys.argv[1], [int(ns) for ns in sys.argv[2:]])
