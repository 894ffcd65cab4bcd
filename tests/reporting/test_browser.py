"""The page and the picture in a real browser: Chromium, driven by selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.reporting.drawing.picture import picture
from permgraph.reporting.drawing.svg import svg
from permgraph.reporting.explorer.model import model
from permgraph.reporting.explorer.page import write
from permgraph.reporting.explorer.results import results
from tests.reporting import made

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed (pip install selenium)"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not here (apt: chromium-driver)"
)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=1280,800"
)
EVIL = '"><img src=x onerror="window.evil=1"></script><script>window.evil=1</script>'


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    """Write a page, open it; its console is empty at the end of the test."""

    def show(data: dict[str, Any], fragment: str = "") -> Any:
        path = write(data, tmp_path / "page.html")
        browser.get("about:blank")
        browser.get(path.as_uri() + fragment)
        assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
        return browser

    yield show
    assert browser.get_log("browser") == []


def network(layers: int = 3, **names: str) -> dict[str, Any]:
    trace = made.trace(layers, **names)
    prefix = {"prefix": names["prefix"]} if "prefix" in names else {}
    return model(trace, made.spec(trace, layers, **prefix))


def click(page: Any, selector: str) -> None:
    """A click on the middle of an element, through the document, as a person's."""
    page.execute_script(
        "const e = document.querySelector(arguments[0]), r = e.getBoundingClientRect();"
        "const at = document.elementFromPoint(r.left + r.width / 2, r.top + r.height / 2);"
        "if (!e.contains(at)) throw new Error('covered by ' + at.outerHTML.slice(0, 200));"
        "at.dispatchEvent(new MouseEvent('click', {bubbles: true}));",
        selector,
    )


def lit(page: Any, kind: str) -> set[str]:
    found = page.execute_script(
        "return [...document.querySelectorAll('.' + arguments[0] + '.lit')]"
        ".map(e => e.dataset.box ?? e.dataset.tail + ' ' + e.dataset.head)",
        kind,
    )
    return set(found)


def text_of(page: Any, selector: str) -> str:
    return str(page.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def test_it_opens_quickly_and_shows_each_equal_module_once(opened: Any) -> None:
    page = opened(network(12))
    titles = page.execute_script("return [...document.querySelectorAll('.box text')].map(t => t.textContent)")
    assert titles.count("q_proj") == 1
    assert "heads.0-11" in titles
    assert page.execute_script("return performance.now()") < 5000


def test_search_finds_tensors_modules_and_groups(opened: Any) -> None:
    page = opened(network())
    box = page.find_element("id", "search")
    box.send_keys("layers.2.ffn.up.wei")
    assert text_of(page, "#found") == "tensor encoder.layers.2.ffn.up.weight"
    box.send_keys("\n")
    assert "encoder.layers.2.ffn.up.weight" in text_of(page, "#panel")
    assert "ffn.2" in text_of(page, "#panel")
    page.execute_script("document.getElementById('search').value = ''")
    box.send_keys("heads.1/v")
    assert "group heads.1/v" in text_of(page, "#found")
    page.execute_script("document.getElementById('search').value = ''")
    box.send_keys("no such thing")
    assert text_of(page, "#found") == "nothing of that name"


@pytest.mark.parametrize("folded", [True, False])
def test_a_click_lights_exactly_the_places_of_a_group(opened: Any, folded: bool) -> None:
    data = network()
    page = opened(data)
    if not folded:
        page.find_element("id", "fold").click()
    numbers = {group["name"]: i for i, group in enumerate(data["groups"])}
    wanted = [i for n, i in numbers.items() if n == "ffn.1" or (folded and n.startswith("ffn."))]
    at = " ".join(map(str, wanted))
    click(page, f'[data-mark="{at}"]')
    stands = page.execute_script(
        "return [...document.querySelectorAll('.box')].map(b => Number(b.dataset.box))"
    )
    has = {
        i
        for i, box in enumerate(data["boxes"])
        if any(set(data["layouts"][layout]) & set(wanted) for *_, layout in box.get("places", ()))
    }
    assert lit(page, "box") == {str(i) for i in has & set(stands)}
    assert len(lit(page, "box")) == 2 and len(lit(page, "wire")) == 1
    opacity = "return getComputedStyle(document.querySelector('.box:not(.lit)')).opacity"
    assert float(page.execute_script(opacity)) < 0.5
    assert "ffn" in text_of(page, "#panel h2")
    page.find_element("tag name", "body").send_keys("\ue00c")  # Escape
    assert not lit(page, "box") and not page.execute_script("return !!document.querySelector('.focus')")


def test_the_panel_names_symmetry_size_places_and_pins(opened: Any) -> None:
    page = opened(network())
    page.find_element("id", "fold").click()
    click(page, '#panel [data-group="3"]')
    assert text_of(page, "#panel h2") == "heads.0-2"
    click(page, '#panel [data-group="3"]')
    words = text_of(page, "#panel")
    assert "S4 ≀ (S6 qk × S6 v)" in words and "7 places" in words and "v_proj.weight[0]" in words
    down = page.execute_script(
        "return [...document.querySelectorAll('.box')].find(b => b.textContent.includes('last_norm')).dataset.box"
    )
    click(page, f'.box[data-box="{down}"]')
    assert "pinned by output" in text_of(page, "#panel")


def test_unfolding_in_place_and_its_link(opened: Any) -> None:
    data = network(6)
    page = opened(data)
    before = page.execute_script("return document.querySelectorAll('.box').length")
    click(page, '.fold[data-run="1"]')
    after = page.execute_script("return document.querySelectorAll('.box').length")
    assert after == before + 5 * len(data["runs"][1]["copies"][0])
    link = page.execute_script("return location.hash")
    again = opened(data, link)
    assert again.execute_script("return document.querySelectorAll('.box').length") == after
    click(again, '.fold[data-run="1"]')
    assert again.execute_script("return document.querySelectorAll('.box').length") == before


def test_keys_zoom_fit_and_open_cards(opened: Any) -> None:
    page = opened(network())
    body = page.find_element("tag name", "body")
    scale = "return document.querySelector('#drawing > g').getAttribute('transform')"
    start = page.execute_script(scale)
    body.send_keys("+")
    assert page.execute_script(scale) != start
    body.send_keys("0")
    assert page.execute_script(scale) == start
    body.send_keys("/")
    assert page.execute_script("return document.activeElement.id") == "search"
    page.execute_script("document.querySelector('.box.weight').focus()")
    page.switch_to.active_element.send_keys("\n")
    assert "Conv1d" in text_of(page, "#panel")


def test_no_card_lies_on_another_and_q_k_v_are_in_order(opened: Any) -> None:
    page = opened(network(6))
    page.find_element("id", "fold").click()
    rects = page.execute_script(
        "return [...document.querySelectorAll('.box .card')].map(c => "
        "['x', 'y', 'width', 'height'].map(k => Number(c.getAttribute(k))))"
    )
    for i, (x, y, w, h) in enumerate(rects):
        for x2, y2, w2, h2 in rects[:i]:
            assert x >= x2 + w2 or x2 >= x + w or y >= y2 + h2 or y2 >= y + h
    places = [
        page.execute_script(
            "return [...document.querySelectorAll('.box text')].filter(t => t.textContent === arguments[0])"
            ".map(t => Number(t.getAttribute('x')))",
            name,
        )
        for name in ("q_proj", "k_proj", "v_proj")
    ]
    assert len(places[0]) == 6 and all(q < k < v for q, k, v in zip(*places, strict=True))


def test_results_are_shown(opened: Any) -> None:
    trace = made.trace(3)
    plan = Plan(made.spec(trace), ("cnn.0", "cnn.1", "cnn.2", "ffn.0"))
    rows = {
        f"cnn.{i}": {"role": "cnn", "units": 16, "moved": 90.0, "correlation": 0.5 + i / 10, "identity": 0.1}
        for i in range(3)
    }
    perms = Permutations(random_permutations(plan).arrays, {"groups": rows})
    page = opened({**model(trace, plan.spec, plan), "results": results(plan, perms)}, "#groups=cnn.1")
    words = text_of(page, "#panel")
    assert "correlation after0.600" in words and "moved90.0 %" in words
    assert page.execute_script("return document.querySelectorAll('canvas.map').length") == 1
    page.find_element("id", "home").click()
    assert page.execute_script("return document.querySelectorAll('.curves').length") == 2


def test_a_hostile_name_is_inert(opened: Any) -> None:
    page = opened(network(2, prefix=EVIL, model=EVIL))
    for selector in (".box.weight", "#panel button.link"):
        click(page, selector)
    page.find_element("id", "search").send_keys("img")
    assert "onerror" in text_of(page, "#found")
    assert page.execute_script("return window.evil") is None
    assert page.execute_script("return document.querySelectorAll('img, script:not([id])').length") == 1


def test_light_and_dark(opened: Any) -> None:
    page = opened(network())
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(ground)
    page.find_element("id", "theme").click()
    assert page.execute_script(ground) != light


def test_texts_are_as_wide_as_they_were_measured(browser: Any, tmp_path: Path) -> None:
    """In the picture, without `textLength`: the embedded font is used, and the table of widths is its own."""
    trace = made.trace(2)
    path = tmp_path / "a.svg"
    path.write_text(svg(picture(trace, made.spec(trace, 2)).scene()), encoding="utf-8")
    browser.get(path.as_uri())
    ratios = browser.execute_async_script(
        "const done = arguments[0]; document.fonts.ready.then(() => done([...document.querySelectorAll('text')]"
        ".filter(t => t.textContent.length > 3).map(t => { const want = Number(t.getAttribute('textLength'));"
        "t.removeAttribute('textLength'); return t.getComputedTextLength() / want; })))"
    )
    assert len(ratios) > 20
    assert all(abs(ratio - 1) < 0.02 for ratio in ratios), (min(ratios), max(ratios))
