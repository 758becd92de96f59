"""Keys of images, by which a data report compares them: equal files have the same key, and files with equal pixels too,
such as a PNG that was compressed again or a JPEG with other metadata.
"""

from hashlib import blake2b

from calibrl_core.data.image_decoding import image_size, open_image
from calibrl_core.data.schema import DataError, Example


class ImageKeys:
    """Keys of images, and the memory of all files that were decoded."""

    def __init__(self, pixels: int) -> None:
        """`pixels`: that are decoded at most. Images beyond are compared by their files only, whatever the machine."""
        self._left = pixels
        self._keys: dict[bytes, bytes] = {}  # by digest of the file
        self._first: dict[bytes, bytes] = {}  # key by digest of the pixels
        self.decoded = 0  # files

    def of(self, example: Example) -> list[bytes]:
        """Return the key of each image."""
        return [self._key(image) for image in example.images]

    def _key(self, image: bytes) -> bytes:
        file = blake2b(image, digest_size=8).digest()
        if file not in self._keys and self._left > 0:
            self._keys[file] = self._first_alike(image, file)
        return self._keys.get(file, file)

    def _first_alike(self, image: bytes, file: bytes) -> bytes:
        """Return the digest of the first file with the pixels of this one, or of this one if it cannot be decoded."""
        try:
            width, height = image_size(image)
            if width * height > self._left:
                return file
            self._left -= width * height
            pixels = open_image(image).tobytes()
        except DataError:  # found when its row is used
            return file
        self.decoded += 1
        digest = blake2b(pixels, digest_size=8, key=f"{width} x {height}".encode()).digest()
        return self._first.setdefault(digest, file)
