"""Optical flow as Middlebury .flo files, a file a frame: data/flow/<recipe> -> FOLDER/<video>/000000.flo ...

    python -m stages.export_flow state FOLDER [VIDEO ...]

Without videos, all of them. Values and size are those of the recipe's resolution, in float32.
"""

import argparse
from pathlib import Path

import cv2

from stages.command import VigilError, command
from stages.io.files import replacing
from stages.io.flow import FLOW, full_size, read_description, read_flow


@command
def main(recipe: str, folder: Path, videos: list[str]) -> str:
    """Write the flow of `videos`, or of all if there are none, below `folder`."""
    description = read_description(recipe)
    for video in videos:
        if video not in description["videos"]:
            raise VigilError(f"no flow of video {video!r}: expected one of {', '.join(description['videos'])}")
    for path in (folder / video for video in videos or description["videos"]):
        if path.is_file() or any(file.suffix != ".flo" for file in path.glob("*")):
            raise VigilError(f"{path} holds something else than .flo files, which would be lost: name another folder")
    written = 0
    for video in videos or description["videos"]:
        with replacing(folder / video) as made:
            made.mkdir()
            for i, flow in enumerate(read_flow(recipe, video)):
                image = full_size(flow[None], description["reduce"])[0].permute(1, 2, 0).numpy()
                if not cv2.writeOpticalFlow(str(made / f"{i:06d}.flo"), image):
                    raise OSError(f"{made} cannot be written to")
                written += 1
    return f"{FLOW / recipe} -> {written} files in {folder}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write optical flow as .flo files.")
    parser.add_argument("recipe", choices=("state", "mama"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("videos", nargs="*")
    arguments = parser.parse_args()
    main(arguments.recipe, arguments.folder, arguments.videos)
