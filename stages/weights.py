"""Download published weights: the makers' servers -> models/pretrained.

    python -m stages.weights            what there is, and what is here
    python -m stages.weights flownet2   download one file, or several
    make weights NAME=flownet2          the same

A download that was interrupted goes on where it stopped. The file is checked before it gets its name.
"""

import os
import sys
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from stages.command import VigilError, command
from stages.io.weights import PRETRAINED, WEIGHTS, check_file

CHUNK = 1 << 16  # bytes; what an interruption can lose
TIMEOUT = 30  # seconds without an answer


@command
def main(names: list[str]) -> str:
    """Download the named files, those that are there already excepted."""
    for name in names:
        if name not in WEIGHTS:
            raise VigilError(f"no weights {name!r}: expected one of {', '.join(WEIGHTS)}")
    for name in names:
        path = PRETRAINED / WEIGHTS[name].file
        if not path.exists():
            download(WEIGHTS[name].address, path, name)
        check_file(path, name)
    return f"{', '.join(WEIGHTS[name].address for name in names)} -> {PRETRAINED}"


def download(address: str, path: Path, name: str) -> None:
    """Fetch `address` to `path`; go on with what an interrupted download has left beside it.

    Raises VigilError where the server refuses, ends early, or sends something else; only what can be continued stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=Retry(3, backoff_factor=0.5, status_forcelist=[502, 503, 504])))
    try:
        with session.get(
            address,
            headers={"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {}),
            stream=True,
            timeout=TIMEOUT,
        ) as answer:
            if answer.status_code == 416:  # nothing is left to send: all is here, or it is another file's part
                if not answer.headers.get("Content-Range", "").endswith(f"/{have}"):
                    part.unlink()
                    raise VigilError(f"{name}: {part} is no part of the file; run the same command again")
                whole = True
            else:
                answer.raise_for_status()
                whole = receive(answer, part, have if answer.status_code == 206 else 0, name)
    except requests.RequestException as error:
        raise VigilError(
            f"{name}: {error}; run the same command again, which goes on with what has arrived, or fetch {address} "
            f"yourself and put it at {path}"
        ) from None
    if not whole:
        raise VigilError(
            f"{name}: the server ended the download after {part.stat().st_size} bytes; what has arrived is kept: "
            "run the same command again"
        )
    try:
        check_file(part, name)
        size, least = part.stat().st_size / 1e6, WEIGHTS[name].megabytes
        if size < 0.98 * least:
            raise VigilError(f"{name}: the server sent {size:.1f} MB, expected {least:.1f} or more from {address}")
    except VigilError:
        part.unlink()
        raise
    os.replace(part, path)


def receive(answer: requests.Response, part: Path, have: int, name: str) -> bool:
    """Write an answer's content to `part`, after the first `have` bytes; return whether all of it came."""
    total = have + int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
    with (
        open(part, "ab" if have else "wb") as file,
        tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        return total is None or file.tell() == total


def table() -> str:
    """All published files: name, whether it is here, size, check, licence, what it is, address."""
    lines = []
    for name, weights in WEIGHTS.items():
        here = "here" if (PRETRAINED / weights.file).exists() else "-"
        check = f"sha256 {weights.sha256}..." if weights.sha256 else "parameter names and shapes"
        lines.append(f"{name:14} {here:5} {weights.megabytes:6.0f} MB  {weights.title}")
        lines.append(f"{'':15}{PRETRAINED / weights.file}; check: {check}; licence: {weights.licence}")
        lines.append(f"{'':15}{weights.address}")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1:])
    else:
        print(table())
