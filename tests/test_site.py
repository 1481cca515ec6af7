"""The website: it is built without a warning, is complete, and works in a browser."""

import re
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import needs_chromium

import fcnconv

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "maintain"))
import make_site

needs_zensical = pytest.mark.skipif(
    not all(map(find_spec, ("zensical", "mkdocstrings"))), reason="no zensical: pip install '.[docs]'"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site.build(tmp_path_factory.mktemp("site"))


@needs_zensical
def test_the_site_has_every_page_and_public_name_and_no_fault(site: Path) -> None:
    assert make_site.faults(site) == []
    pages = {Path(page).with_suffix(".html").name for page in make_site.PAGES.values()}
    assert pages <= {page.name for page in site.glob("*.html")}
    api = (site / "api.html").read_text(encoding="utf-8")
    assert [
        name for name in fcnconv.__all__[1:] if name[0] != "_" and f'id="fcnconv.{name}"' not in api
    ] == []


@needs_zensical
def test_every_page_can_be_reached_from_the_navigation(site: Path) -> None:
    linked = {link.removeprefix("./") for link in make_site._Addresses(site / "index.html").linked}
    pages = {page.name for page in site.glob("*.html")} - {"404.html"}
    assert {page for page in pages if page not in linked} <= {"index.html"}


SEARCH = "const host = [...document.querySelectorAll('*')].find(e => e.shadowRoot?.querySelector('input'));"
READY = "return Boolean(document.querySelector('.md-search__button'))"
OPENED = f"{SEARCH} return Boolean(host && document.activeElement == host)"
FOUND = f"""{SEARCH} return [...host.shadowRoot.querySelectorAll('a')].map(a => a.href)"""
"""The dialog of the search is in the shadow root of an element that appears with it."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The address of a local web server with the site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@needs_zensical
@needs_chromium
def test_a_page_fits_a_phone_and_its_search_finds(address: str, browser: Any) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("performance")
    try:
        for page in ("api", "models", "help", "index"):
            browser.get(f"{address}/{page}.html")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 390, page
        wait = WebDriverWait(browser, 60)
        wait.until(lambda _: browser.execute_script(READY))
        browser.execute_script("document.querySelector('.md-search__button').click()")
        wait.until(lambda _: browser.execute_script(OPENED))
        browser.switch_to.active_element.send_keys("convolutionize")
        found = wait.until(lambda _: browser.execute_script(FOUND))
        assert any("/api.html" in link and "#fcnconv.convolutionize" in link for link in found), found
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
        requests = [entry["message"] for entry in browser.get_log("performance")]
        urls = {url for request in requests for url in re.findall(r'"url":"(https?://[^"]*)"', request)}
        assert urls and all(url.startswith(address) for url in urls)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_faults_of_a_site_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="#here"></a><a href="b.html"></a><a href="#nope"></a><a href="no.html"></a>'
        '<img src="no.png"><script src="https://example.org/x.js"></script><a href="https://example.org"></a>'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#here"></a><a href="a.html#there"></a>')
    assert make_site.faults(tmp_path) == [
        "a.html: no.png is missing",
        "a.html: loads https://example.org/x.js",
        "a.html: #nope has no such anchor",
        "a.html: no.html is missing",
        "b.html: a.html#there has no such anchor",
    ]


def test_links_lead_to_the_copies_and_code_stays(tmp_path: Path) -> None:
    text = "[a](docs/trust.md#x) [b](LICENSE) [c](https://example.org) [d](no.md)\n\n"
    text += "```sh\n[e](docs/trust.md)\n```\n"
    relinked = make_site._relinked(text, make_site.ROOT / "README.md", tmp_path)
    assert relinked == (
        "[a](trust.md#x) [b](files/LICENSE.txt) [c](https://example.org) [d](no.md)\n\n"
        "```sh\n[e](docs/trust.md)\n```\n"
    )
    assert (tmp_path / "files/LICENSE.txt").is_file()


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    assert make_site.main(tmp_path) == 2 and (tmp_path / "kept").is_file()
