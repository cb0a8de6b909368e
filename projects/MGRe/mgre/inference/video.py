"""The frames of a video, by OpenCV."""

import os

import numpy as np
from PIL import Image

from mgre.errors import DataError, SetupError
from mgre.reading.images import ImageError


class VideoFrames:
    """Reads frames of one video, each at or after the one before.

    Args:
        path: of the video.

    Raises:
        SetupError: OpenCV is not installed.
        DataError: the file is no video that OpenCV reads.
    """

    def __init__(self, path: str) -> None:
        # Only here: images do without OpenCV.
        try:
            import cv2
        except ImportError as error:
            raise SetupError("OpenCV is needed to read videos: pip install opencv-python-headless") from error
        self._cv2 = cv2
        self._path = path
        self._capture = cv2.VideoCapture(os.fspath(path))
        self._next = 0  # the number of the frame that the next grab gives
        self._ended = False
        if not self._capture.isOpened():
            raise DataError(f"video '{path}' cannot be read by OpenCV: convert it, for example to MP4 with H.264")

    def read(self, path: str, frame: int) -> Image.Image:
        """The frame with this number, from 0.

        Frames between are decoded and passed over: jumping to a number is not exact in many videos.

        Raises:
            ImageError: the video ends before it, or is damaged there.
        """
        while not self._ended and self._next <= frame:
            if self._capture.grab():
                self._next += 1
            else:
                self._ended = True
        if self._next <= frame:
            raise ImageError(
                f"video '{path}' ends, or is damaged, after {self._next} frames: later frames have no image"
            )
        read, pixels = self._capture.retrieve()
        if not read:
            raise ImageError(f"frame {frame} of video '{path}' cannot be decoded")
        return Image.fromarray(np.ascontiguousarray(self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB)))

    def close(self) -> None:
        self._capture.release()
