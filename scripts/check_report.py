#!/usr/bin/env python3
"""Checks a report.html as a browser and a strict parser see it, and keeps pictures of it.

Usage: scripts/check_report.py REPORT.html [--pictures FOLDER] [--chromium PROGRAM]
       needs html5lib; pypdf for the printed page, Pillow to make pictures small, chromium for both

Without chromium only the text is checked, and the last line says so. Ends with status 1 when something is wrong.
"""

import argparse
import html
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import html5lib

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
OUTSIDE = ("http:", "https:", "src=", "url(", "@import", "<script", "<link", "<iframe", "<object")
LIMIT = 200_000
WIDTHS = (1200, 420)
SCHEMES = {"dark": 0, "light": 1}


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def of_text(page):
    """What can be found out without a browser."""
    wrong = []
    try:
        tree = html5lib.HTMLParser(strict=True).parse(page)
    except html5lib.html5parser.ParseError as error:
        return None, [f"html5lib: {error}"]
    if len(page.encode()) >= LIMIT:
        wrong.append(f"{len(page.encode())} bytes, at most {LIMIT}")
    wrong += [f"refers to the outside: {word}" for word in OUTSIDE if word in page]
    elements = list(tree.iter())
    ids = [element.get("id") for element in elements if element.get("id")]
    wrong += [f"id {one} stands {ids.count(one)} times" for one in set(ids) if ids.count(one) > 1]
    for element in elements:
        target = element.get("href", "")
        if target.startswith("#") and target[1:] not in ids:
            wrong.append(f"no id for the link {target}")
        for name in element.get("aria-labelledby", "").split():
            if name not in ids:
                wrong.append(f"no id for aria-labelledby {name}")
        if element.tag == HTML + "table" and element.find(HTML + "caption") is None:
            wrong.append("a table without a caption")
        if element.tag == HTML + "th" and element.get("scope") not in ("row", "col"):
            wrong.append(f"a heading without a scope: {text_of(element)}")
        if element.tag == SVG + "svg":
            named = element.get("aria-hidden") == "true" or element.find(SVG + "title") is not None
            if not named:
                wrong.append("a picture without a title that is not hidden")
    headings = [int(e.tag[-1]) for e in elements if re.fullmatch(re.escape(HTML) + "h[1-6]", str(e.tag))]
    if headings.count(1) != 1:
        wrong.append(f"{headings.count(1)} headings of the first level")
    wrong += [f"h{a} is followed by h{b}" for a, b in zip(headings, headings[1:]) if b > a + 1]
    return tree, wrong


class Browser:
    def __init__(self, program):
        self.program = program

    def run(self, page, *arguments):
        command = [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        with tempfile.TemporaryDirectory() as profile:
            command += [f"--user-data-dir={profile}", *arguments, page.resolve().as_uri()]
            done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        return done.stdout.decode()

    def sizes(self, page, width):
        """Width and height of everything at this width of the window."""
        text = page.read_text(encoding="utf-8")
        # The page itself lets no script run.
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        measure = (
            "<script>addEventListener('load',()=>{const e=document.documentElement;"
            "document.title=innerWidth+' '+e.scrollWidth+' '+e.scrollHeight})</script></body>"
        )
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "measured.html"
            copy.write_text(text.replace("</body>", measure), encoding="utf-8")
            dom = self.run(copy, "--dump-dom", f"--window-size={width},800", "--virtual-time-budget=2000")
        title = html.unescape(re.search(r"<title>(.*?)</title>", dom, re.S).group(1))
        return [int(number) for number in title.split()]

    def picture(self, page, out, width, height, scheme, *more):
        self.run(
            page,
            f"--screenshot={out}",
            f"--window-size={width},{height}",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            # A picture of a page that is drawn, however busy the machine.
            "--run-all-compositor-stages-before-draw",
            "--virtual-time-budget=2000",
            *more,
        )


def in_browser(page, browser, pictures):
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for width in WIDTHS:
            # Headless windows are never narrower than 500.
            window, scroll, height = browser.sizes(page, width)
            if scroll > window:
                wrong.append(f"at {width} the page is {scroll} wide in a window of {window}")
            for scheme in SCHEMES:
                name = f"report-{width}-{scheme}.png"
                shot = folder / name
                browser.picture(page, shot, window, min(height, 16000), scheme)
                if pictures:
                    shrink(shot, pictures / name)
        alone = folder / "alone.png"
        offline = ("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9")
        window, _, height = browser.sizes(page, WIDTHS[0])
        browser.picture(page, alone, window, min(height, 16000), "light", *offline)
        if alone.read_bytes() != (folder / f"report-{WIDTHS[0]}-light.png").read_bytes():
            wrong.append("without a network the picture is another")
        printed = folder / "report.pdf"
        browser.run(page, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
        wrong += first_page(page, printed)
    return wrong


def first_page(page, printed):
    """The first page on paper has the verdict and every key row."""
    try:
        import pypdf
    except ImportError:
        print("pypdf is not here: the printed page was not looked at")
        return []
    reader = pypdf.PdfReader(printed)
    squeezed = lambda text: "".join(text.split())
    first = squeezed(reader.pages[0].extract_text())
    tree = html5lib.parse(page.read_text(encoding="utf-8"))
    wanted = [text_of(next(tree.iter(HTML + "h1")))]
    table = next((t for t in tree.iter(HTML + "table") if t.get("class") == "key"), None)
    if table is not None:
        wanted += [text_of(name) for name in table.iter(HTML + "span") if name.get("class") == "name"]
    return [f"not on the first printed page: {text}" for text in wanted if squeezed(text) not in first]


def shrink(source, target):
    try:
        from PIL import Image
    except ImportError:
        shutil.copy(source, target)
        return
    Image.open(source).convert("RGB").quantize(160, method=Image.Quantize.FASTOCTREE).save(target, optimize=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("--pictures", type=pathlib.Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    arguments = parser.parse_args()
    page = arguments.report.read_text(encoding="utf-8")
    tree, wrong = of_text(page)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    if tree is not None and arguments.chromium:
        wrong += in_browser(arguments.report, Browser(arguments.chromium), arguments.pictures)
    for line in wrong:
        print(line)
    looked = "" if arguments.chromium else "; no chromium, so nobody looked at it"
    print(f"{arguments.report}: {len(page.encode())} bytes, {len(wrong)} things wrong{looked}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
