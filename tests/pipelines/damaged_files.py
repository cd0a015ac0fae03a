"""Files that were damaged on purpose: random changes, made where a format keeps its numbers."""

import gzip
import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

EXTREMES = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
IMAGE_FORMATS = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", {}),
    "jpeg": (
        "JPEG",
        {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\3\0\1\0\0\0\6\0\0\0"},
    ),
    "webp": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "tif": ("TIFF", {}),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "gif": ("GIF", {}),
    "ppm": ("PPM", {}),
    "avif": ("AVIF", {}),
}
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"),
    "GIF": ("L", "P"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "AVIF": ("RGB", "RGBA"),
}


def picture(mode):
    """7x9 pixels that are all different."""
    levels = np.arange(63, dtype=np.uint16).reshape(7, 9)
    if mode == "I;16":
        return Image.fromarray(levels * 1000)
    return Image.fromarray((levels * 4).astype(np.uint8)).convert(mode)


def damaged_image(rng, ending):
    """The bytes of an image file with some of them changed."""
    file_format, options = IMAGE_FORMATS[ending]
    file = io.BytesIO()
    picture(rng.choice(MODES[file_format])).save(file, file_format, **options)
    data = file.getvalue()
    if file_format == "PNG" and rng.random() < 0.7:
        return damaged_png(rng, data)
    return damaged(rng, data, head=120)


def damaged_png(rng, data):
    """Chunks changed, dropped, repeated or added, each with a checksum that is right."""
    chunks, start = [], 8
    while start < len(data):
        (length,) = struct.unpack(">I", data[start : start + 4])
        chunks.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
        start += 12 + length
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(chunks))
        name, content = chunks[i]
        change = rng.randrange(4)
        if change == 0:
            chunks[i] = (name, damaged(rng, content, head=13))
        elif change == 1:
            chunks.insert(i, chunks.pop(rng.randrange(len(chunks))))
        elif change == 2:
            extra = rng.choice(
                (b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"eXIf", b"gAMA")
            )
            chunks.insert(i, (extra, rng.randbytes(rng.randrange(30))))
        else:
            chunks.insert(i, chunks[i])
    return data[:8] + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def damaged_idx(rng, array):
    """An IDX file, plain or gzipped, damaged before or after it was gzipped."""
    sizes = b"".join(struct.pack(">I", size) for size in array.shape)
    data = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
    if rng.random() < 0.8:
        data = damaged(rng, data, head=4 + len(sizes))
    if rng.random() < 0.5:
        data = gzip.compress(data, mtime=0)
        if rng.random() < 0.5:
            data = damaged(rng, data, head=20)
    return data


def damaged_npz(rng, arrays):
    """An npz file of any compression, damaged in an array, in its header or in the archive."""
    file = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(file, "w", rng.choice(methods)) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array)
            data = member.getvalue()
            if rng.random() < 0.4:
                data = damaged_header(rng, data)
            archive.writestr(f"{name}.npy", data)
    data = file.getvalue()
    if rng.random() < 0.6:
        directory = data.rindex(b"PK\1\2") if rng.random() < 0.5 else 0
        data = data[:directory] + damaged(rng, data[directory:], head=60)
    return data


def damaged_header(rng, data):
    """An array whose text header has a word or character replaced."""
    if rng.random() < 0.3:
        return damaged(rng, data, head=80)
    words = (
        b"(",
        b")",
        b"'",
        b"|u1",
        b"|O",
        b"<i8",
        b"<f4",
        b"True",
        b"-1",
        b"20",
        b"1e9",
        b"[",
        b"\\",
    )
    new = rng.choice((*words, b"1" * 23, b"(" * 200, b"'|V0'", b"\xff", b"4294967296"))
    old = rng.choice(words)
    return data.replace(old, new, 1)


def damaged(rng, data, head):
    """Bytes with one to four changes, half of them in the first `head`."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        end = min(head, len(data)) if rng.random() < 0.5 else len(data)
        at = rng.randrange(end + 1)
        change = rng.randrange(6)
        if change == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change in (1, 2):
            size, order = rng.choice((1, 2, 4, 4)), rng.choice(("little", "big"))
            number = rng.choice(EXTREMES) % 256**size
            data[at : at + size] = number.to_bytes(size, order)
        elif change == 3 and rng.random() < 0.5:
            del data[at:]
        elif change == 4:
            del data[at : at + rng.randrange(1, 9)]
        else:
            data[at:at] = data[: rng.randrange(20)] if rng.random() < 0.5 else rng.randbytes(3)
    return bytes(data)
