"""Compare all that was evaluated on the data set: metrics/, DVC's experiments -> metrics/report/index.html.

    python -m stages.report                       # the workspace, and the experiments of the last commit
    python -m stages.report --all-commits         # the experiments of all commits
    python -m stages.report --readme README.md    # also a table of the papers' figures against ours

A static page: no server, no network. Runs that differ by the seed alone are one row, with mean and deviation:

    dvc exp run --queue -S method=mnad,state -S seed=0,1,2 && dvc queue start && python -m stages.report
"""

import argparse
import json
from pathlib import Path

from stages.command import command
from stages.dataset import CARD
from stages.params import load
from stages.report.evaluations import METRICS, gather
from stages.report.page import write_report
from stages.report.readme import markdown, write
from stages.videos import FRAMES, read_videos


@command
def main(all_commits: bool, readme: Path | None) -> str:
    """Gather, then write the page and, where it is asked for, the table."""
    params, videos = load(), read_videos()
    lengths = dict(zip(videos["video"], videos["frames"].tolist(), strict=True))
    evaluations, left_out = gather(params.dataset, lengths, all_commits)
    write_report(evaluations, METRICS / "report", json.loads(CARD.read_text()), videos, FRAMES)
    if readme:
        write(readme, params.dataset, markdown(evaluations, params.dataset))
    for line in left_out:
        print(f"left out: {line}")
    methods = list(dict.fromkeys(one.method for one in evaluations))
    return f"{len(evaluations)} evaluation(s) of {', '.join(methods)} -> {METRICS / 'report' / 'index.html'}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.report", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--all-commits", action="store_true", help="experiments of all commits")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="Markdown file that gets the table")
    arguments = parser.parse_args()
    main(arguments.all_commits, arguments.readme)
