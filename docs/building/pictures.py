"""The pictures of a report that README and docs/methods/report.md show.

make quickstart && make report-check
python tests/evaluation/browser/check_report.py --page outputs/quickstart/report.html
python docs/building/pictures.py outputs/report-check docs/images
"""

import sys
from pathlib import Path

from PIL import Image

# Width of the window -> how much of the page is shown.
HEIGHTS = {1440: 1345, 360: 1478}
QUALITY = 80


def main(argv: list[str]) -> None:
    shots, folder = map(Path, argv)
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in HEIGHTS.items():
        with Image.open(shots / f"report-light-{width}.png") as page:
            target = folder / f"report_{width}.webp"
            page.convert("RGB").crop((0, 0, width, height)).save(target, quality=QUALITY, method=6)
            print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
