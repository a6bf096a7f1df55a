"""
Looks at reports in a real browser: `make report-check`, or

    python tests/evaluation/browser/check_report.py [--output_dir outputs/report-check] [--only two_classes]
    python tests/evaluation/browser/check_report.py --page outputs/quickstart/report.html

It needs Chromium (`apt-get install chromium`, or CHROMIUM=/path/to/chromium or chrome) and two packages
(`pip install -e '.[browser]'`; no browser is downloaded). It is no part of `make test`, which has to pass on machines
without a browser; it fails where anything that it needs is missing.

Checked of every page, light and dark, 360 and 1440 pixels wide: no console message, no request but the page itself, no
violation of any rule of axe-core with everything unfolded, no horizontal scrolling of the page, a skip link that is
the first stop of the keyboard, an outline on whatever has the focus, the switch of colours; and on A4: nothing wider
than the paper, everything unfolded, white. Full-page screenshots and PDF files stay in the output folder: look at them.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from example_pages import write_pages

WIDTHS = {360: 740, 1440: 900}
SCHEMES = ("light", "dark")
# A4 less the browser's own margins of 0.4 inch, in CSS pixels.
PAPER = 717
FOCUS_STOPS = 25
FOCUSED = """() => {
    const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
    return {name: element.tagName + " " + (element.getAttribute("aria-label") || element.textContent.slice(0, 40)),
            href: element.getAttribute("href"),
            outline: parseFloat(style.outlineWidth) * (style.outlineStyle !== "none"),
            visible: box.width > 0 && box.height > 0 && box.right > 0};
}"""
WIDER = """width => [...document.querySelectorAll("body *")].filter(element => !element.closest("svg svg, .skip") &&
    element.getBoundingClientRect().right > width + 1).map(element => element.outerHTML.slice(0, 90)).slice(0, 5)"""
FOLDED = """() => [...document.querySelectorAll("details > :not(summary)")].filter(
    element => !element.checkVisibility({contentVisibilityAuto: true}) || element.offsetHeight === 0).length"""


def chromium() -> str:
    """Path of the browser, or an end of the program that says how to get one."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    found = next(filter(None, map(shutil.which, filter(None, names))), None)
    if found is None:
        sys.exit("No Chromium was found: apt-get install chromium, or name one: CHROMIUM=/path/to/it make report-check")
    return found


def check_screen(browser, page_file: Path, scheme: str, width: int, shots: Path) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    problems, requests = [], []
    page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri(), wait_until="load")
    problems += [f"requests {url}" for url in requests if url != page_file.as_uri() and not url.startswith("data:")]
    page.screenshot(path=shots / f"{page_file.stem}-{scheme}-{width}.png", full_page=True)
    problems += keyboard_problems(page)
    page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        problems.append(f"scrolls sideways: {page.evaluate(WIDER, width)}")
    for violation in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]:
        nodes = [node["html"][:160] for node in violation["nodes"][:3]]
        problems.append(f"axe {violation['id']} ({len(violation['nodes'])}): {violation['help']}: {nodes}")
    problems += colour_problems(page)
    page.close()
    return problems


def keyboard_problems(page) -> list[str]:
    problems = []
    for stop in range(FOCUS_STOPS):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if stop == 0 and focused["href"] != "#main":
            problems.append(f"the first stop of the keyboard is {focused['name']}, not the skip link")
        if focused["name"].startswith("BODY"):
            break
        if not focused["visible"] or focused["outline"] < 2:
            problems.append(f"the focus is not seen on {focused}")
    return problems


def colour_problems(page) -> list[str]:
    """The switch must work in either direction, whatever the system prefers."""
    seen = {}
    for theme in (*SCHEMES, "system"):
        page.check(f"#theme-{theme}")
        seen[theme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    wrong = seen["light"] == seen["dark"] or seen["system"] not in (seen["light"], seen["dark"])
    return [f"the switch of colours does nothing: {seen}"] if wrong else []


def check_paper(browser, page_file: Path, shots: Path) -> list[str]:
    problems = []
    page = browser.new_page(viewport={"width": PAPER, "height": 1000}, color_scheme="dark")
    page.goto(page_file.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        problems.append(f"paper: cut off at the edge: {page.evaluate(WIDER, PAPER)}")
    if folded := page.evaluate(FOLDED):
        problems.append(f"paper: {folded} parts stay folded")
    if page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)":
        problems.append("paper: the page is not white")
    page.pdf(path=shots / f"{page_file.stem}.pdf", format="A4", margin=dict.fromkeys(("left", "right"), "0.4in"))
    page.close()
    return problems


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/report-check"))
    parser.add_argument("--only", help="look at this page alone")
    parser.add_argument("--page", type=Path, help="a report of yours to look at in place of the examples")
    args = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    program, folder, found = chromium(), args.output_dir.absolute(), []
    if args.page is not None:
        folder.mkdir(parents=True, exist_ok=True)
        pages = [args.page.absolute()]
    else:
        pages = [path for path in write_pages(folder) if args.only in (None, path.stem)]
    if not pages:
        sys.exit(f"There is no page {args.only!r}.")
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, as in a container.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=options)
        for page_file in pages:
            for scheme in SCHEMES:
                for width in WIDTHS:
                    problems = check_screen(browser, page_file, scheme, width, folder)
                    found += [f"{page_file.name}, {scheme}, {width} px: {problem}" for problem in problems]
            found += [f"{page_file.name}: {problem}" for problem in check_paper(browser, page_file, folder)]
            print(f"{page_file.name}: looked at", flush=True)
        browser.close()
    print("\n".join(found))
    print(f"{len(pages)} pages, {len(found)} problems; screenshots and PDF files: {folder}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
