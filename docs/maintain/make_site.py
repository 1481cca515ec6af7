"""Builds the website from the README and the pages of docs/, and fails on a broken link, anchor or picture.

    pip install '.[docs]'
    python docs/maintain/make_site.py site

The pages are plain Markdown whose links work in the repository. Here they are copied to a scratch folder, in
which README.md is the first page and links lead to the copies; Zensical builds the site from it. Docstrings
make the reference of the Python interface. Nothing on the site is loaded from another server.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fcnconv

ROOT = Path(__file__).parents[2]

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security_policy.md",
    "benchmarks/README.md": "benchmarks.md",
    "sample_images/README.md": "sample_images.md",
} | {f"docs/{page.name}": page.name for page in sorted((ROOT / "docs").glob("*.md"))}
"""Each page of the repository -> its file among the assembled pages."""

TEXT_FILES = {"LICENSE", "CITATION.cff", "Dockerfile"}
"""Linked files that a browser shows as text only if their suffix is .txt."""

LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def assemble(folder: Path) -> None:
    """Copies the pages to a folder, with what they link, and adds the page of the Python interface."""
    folder.mkdir(parents=True)
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        (folder / page).write_text(_relinked(text, ROOT / source, folder), encoding="utf-8")
    (folder / "api.md").write_text(_api(), encoding="utf-8")


def _relinked(text: str, source: Path, folder: Path) -> str:
    """The text of a page with links that lead to the copies of what they name."""
    parts = []
    end = 0
    for fence in [*FENCE.finditer(text), None]:
        start = fence.start() if fence else len(text)
        parts.append(
            LINK.sub(lambda link: link[1] + _target(link[2], source, folder) + link[3], text[end:start])
        )
        parts.append(fence[0] if fence else "")
        end = fence.end() if fence else len(text)
    return "".join(parts)


def _target(link: str, source: Path, folder: Path) -> str:
    path, _, anchor = link.partition("#")
    file = (source.parent / path).resolve()
    if (
        not path or urlsplit(link).scheme or not file.is_file()
    ):  # a file that is missing stays, and is reported
        return link
    named = file.relative_to(ROOT).as_posix()
    page = PAGES.get(named)
    if page is None:
        page = f"files/{named}{'.txt' if named in TEXT_FILES else ''}"
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / page)
    return f"{page}#{anchor}" if anchor else page


def _api() -> str:
    """The page of the Python interface: a directive for each public name, classes of errors last."""
    names = [name for name in fcnconv.__all__ if not name.startswith("__")]
    names.sort(key=lambda name: (name.endswith("Error"), name != "load"))
    directives = "\n\n".join(f"::: fcnconv.{name}" for name in names)
    return f"# Python\n\nEverything that `import fcnconv` offers.\n\n{directives}\n"


class _Addresses(HTMLParser):
    """The addresses in a page: `loaded` by the browser itself, or `linked`; and the `ids` of its elements."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.ids.add(value)
            elif value and (name == "src" or (name == "href" and tag == "link")):
                self.loaded.append(value)
            elif value and name == "href":
                self.linked.append(value)


def faults(site: Path) -> list[str]:
    """What is wrong with a built site: missing files and anchors, and what is loaded from another server."""
    pages = {page.resolve(): _Addresses(page) for page in sorted(site.rglob("*.html"))}
    found = []
    for page, addresses in pages.items():
        if page.name == "404.html":  # its links start at the site's root, which is unknown here
            continue
        name = page.relative_to(site.resolve()).as_posix()
        for address in addresses.loaded + addresses.linked:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in addresses.loaded and parts.scheme != "data":
                    found.append(f"{name}: loads {address}")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{name}: {address} is missing")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{name}: {address} has no such anchor")
    return found


def build(folder: Path) -> Path:
    """Assembles the pages in a folder, builds the site there and returns its path.

    Raises:
        RuntimeError: Zensical or a docstring's parser reports something.
    """
    assemble(folder / "pages")
    settings = (ROOT / "docs" / "maintain" / "zensical.toml").read_text(encoding="utf-8")
    (folder / "zensical.toml").write_text(settings.replace("SOURCE", ROOT.as_posix()), encoding="utf-8")
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run(
        [zensical, "build", "--strict"],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    print(done.stdout, end="", file=sys.stderr)
    # Docstrings that cannot be parsed are reported by griffe, and do not stop Zensical.
    if done.returncode != 0 or "griffe: " in done.stdout:
        raise RuntimeError("the site was not built without warnings")
    return folder / "site"


def main(out: Path) -> int:
    """Builds the site and moves it to `out`, if nothing is wrong with it. Returns the exit status."""
    if out.exists():
        print(f"{out} exists; delete it, or name another folder", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        try:
            site = build(Path(scratch))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        if found := faults(site):
            print(*found, sep="\n", file=sys.stderr)
            return 1
        shutil.move(site, out)
    print(f"{sum(1 for _ in out.rglob('*.html'))} pages in {out}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/maintain/make_site.py FOLDER")
    sys.exit(main(Path(sys.argv[1])))
