"""The page in a real browser, opened from the disk: clicked through, no error, nothing fetched from elsewhere."""

import os
import shutil
from contextlib import contextmanager

import pytest

from stages.report.page import write_report
from tests.report import made

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
WIDE, PHONE = (1280, 800), (390, 844)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser here: none of {', '.join(NAMES)} is on the path")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--disable-gpu"] + (["--no-sandbox"] if os.geteuid() == 0 else [])
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=flags)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with all there is: several seeds, the floor, another split, boxes and maps, names to be escaped."""
    folder = tmp_path_factory.mktemp("report")
    made.write_frames(folder / "frames")
    runs = [
        made.evaluation("mnad", 0.7, name="mnad, seed 0", seed=0, speed=30.0),
        made.evaluation("mnad", 0.8, name="mnad, seed 1", seed=1, speed=40.0),
        made.evaluation("mama", 0.9, name="<b>mama</b>", speed=5.0),
        made.evaluation("frame_difference", 0.6, maps=False, speed=11_000.0),
        made.evaluation("s3r", 0.95, frames=made.frame_table({"test/a": 40}), maps=False, speed=2_000.0, data="d2"),
    ]
    for run in runs[:2]:
        run.metrics["alarms"]["false_alarms_per_hour"] = None
    write_report(runs, folder / "report", made.CARD, made.videos(), folder / "frames")
    return (folder / "report" / "index.html").as_uri()


@contextmanager
def opened(browser, address: str, size=WIDE, scheme="light", script=True):
    """A page; on leaving it, there must have been no error, no request beyond the disk, and no sideways scrolling."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, java_script_enabled=script
    )
    page = context.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    page.on("request", lambda request: None if local(request.url) else wrong.append(request.url))
    page.goto(address)
    yield page
    if script:
        assert overflow(page) == 0
    context.close()
    assert wrong == []


def local(url: str) -> bool:
    return url.startswith(("file:", "data:"))


def overflow(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def order(page, body: int = 0) -> list[str]:
    rows = page.locator("#results tbody").nth(body).locator("tr:not(.about) th.name")
    return [name.get_attribute("data-value") for name in rows.all()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE, (360, 700)])
def test_it_opens_with_all_its_pictures(browser, address, size, scheme):
    with opened(browser, address, size, scheme) as page:
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        page.wait_for_function("[...document.images].every((image) => image.complete)")
        assert page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0
        assert page.evaluate("document.images.length") > 10
        paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) < 150) == (scheme == "dark")


def test_the_table_sorts_by_every_column(browser, address):
    with opened(browser, address) as page:
        assert order(page) == ["mama", "mnad", "frame_difference"]
        assert order(page, 1) == ["s3r"]  # judged on other frames: never among the others
        header = page.locator("#results th", has=page.locator("button[data-key=auc]"))
        assert header.get_attribute("aria-sort") == "descending"
        page.click("#results button[data-key=auc]")
        assert header.get_attribute("aria-sort") == "ascending"
        assert order(page) == ["frame_difference", "mnad", "mama"]
        page.click("#results button[data-key=fps]")
        assert header.get_attribute("aria-sort") == "none"
        assert order(page) == ["frame_difference", "mnad", "mama"]
        page.click("#results button[data-key=eer]")  # the lower the better, so the lowest first
        assert order(page) == ["mama", "mnad", "frame_difference"]
        page.click("#results button[data-key=name]")
        assert order(page) == ["frame_difference", "mama", "mnad"]
        for _ in range(2):  # what is not known comes last, both ways
            page.click("#results button[data-key=false]")
            assert order(page)[-1] == "mnad"
        page.focus("#results button[data-key=parameters]")
        page.keyboard.press("Enter")
        assert order(page) == ["mama", "mnad", "frame_difference"]
        assert order(page, 1) == ["s3r"]


def test_roc_curves_are_toggled(browser, address):
    with opened(browser, address) as page:
        curves = page.locator("#roc g.curve")
        assert curves.count() == 8
        assert page.locator("#roc g.curve path").count() == 10  # a line a seed
        legend = page.locator("#roc .legend input")
        legend.first.uncheck()
        assert [one.is_visible() for one in curves.all()].count(False) == 2
        legend.first.check()
        assert all(one.is_visible() for one in curves.all())


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_scores_are_read_off(browser, address, size):
    with opened(browser, address, size) as page:
        chart, readout = page.locator("#chart"), page.locator("#readout")
        assert chart.locator("path.line").count() == 4
        assert chart.locator("rect.hit").count() == 4  # an alarm a method, on the event
        assert chart.locator("line.threshold").count() == 4
        chart.focus()
        for key in ("Home", "ArrowRight", "ArrowRight", "PageUp", "ArrowLeft"):
            page.keyboard.press(key)
        assert readout.inner_text() == "frame 11 · 1.10 s · abnormal"
        assert chart.get_attribute("aria-valuenow") == "11"
        assert "mnad 3.100, alarm" in chart.get_attribute("aria-valuetext")
        page.keyboard.press("End")
        assert readout.inner_text() == "frame 39 · 3.90 s · normal"
        box = chart.bounding_box()
        chart.hover(position={"x": 40 + (box["width"] - 46) * 20.5 / 40, "y": 50})
        assert readout.inner_text() == "frame 20 · 2.00 s · normal"
        texts = chart.locator("text.now").all_text_contents()
        assert texts == ["0.000"] * 4


def test_protocol_video_and_methods_are_chosen(browser, address):
    with opened(browser, address) as page:
        chart = page.locator("#chart")
        page.locator("input[name=protocol][value=paper]").check(force=True)
        assert chart.locator("line.threshold").count() == 0
        chart.focus()
        page.keyboard.press("Home")
        assert chart.locator("text.now").all_text_contents() == ["not judged"] * 4
        page.locator("input[name=protocol][value=honest]").check(force=True)
        assert page.locator("#back").is_disabled()
        page.click("#on")
        assert page.locator("#on").is_disabled()
        assert page.locator("#video").input_value() == "1"
        assert page.locator(".card[aria-pressed=true] .file").inner_text() == "test/b & <c>"
        assert chart.locator("path.line").count() == 3
        assert "Not judged on this video: s3r." in page.locator("#explained").inner_text()
        page.locator("#toggles input").nth(1).uncheck()
        assert chart.locator("path.line").count() == 2
        page.check("#same")
        assert chart.locator("path.line").count() == 2
        page.locator(".card").first.click()
        assert page.locator("#video").input_value() == "0"
        page.locator("#video").select_option("1")
        assert page.locator("#keys .shot").count() == 7
        assert page.locator("#keys .shot b").all_inner_texts() == ["▲ highest of mama"]


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_the_viewer_opens_goes_on_and_closes(browser, address, size):
    with opened(browser, address, size) as page:
        viewer, title = page.locator("#viewer"), page.locator("#viewer-title")
        shot = page.locator(".kind.highest .shot").first
        shot.click()
        assert viewer.is_visible()
        assert title.inner_text() == "mama, highest scores 1"
        assert viewer.locator("img.map").is_visible()
        page.click("#viewer-seen")
        assert not viewer.locator("img.map").is_visible()
        page.click("#viewer-seen")
        page.keyboard.press("ArrowRight")
        assert title.inner_text() == "mama, highest scores 2"
        page.click("#viewer-on")
        assert title.inner_text() == "mnad, highest scores 1"
        page.click("#viewer-back")
        page.click("#viewer-back")
        assert page.locator("#viewer-back").is_disabled()
        picture, window = viewer.locator(".layers").bounding_box(), page.viewport_size
        assert picture["width"] / picture["height"] == pytest.approx(1.5, rel=0.02)
        assert picture["x"] >= 0
        assert picture["x"] + picture["width"] <= window["width"]
        assert picture["y"] + picture["height"] <= window["height"]
        page.keyboard.press("Escape")
        assert not viewer.is_visible()
        assert shot.evaluate("shot => shot === document.activeElement")
        page.keyboard.press("Enter")
        assert viewer.is_visible()
        page.click("#viewer-close")
        assert not viewer.is_visible()


def test_kinds_of_frames_are_chosen(browser, address):
    with opened(browser, address) as page:
        for kind in ("highest", "false_alarm", "miss"):
            page.locator(f"#kind-{kind}").check(force=True)
            shown = [one.get_attribute("class") for one in page.locator(".kind").all() if one.is_visible()]
            assert shown == [f"kind {kind}"]
        page.uncheck("#seen")
        assert not page.locator(".kind.miss .seen").first.is_visible()


def test_everything_is_reached_by_keyboard_with_a_visible_focus(browser, address):
    with opened(browser, address) as page:
        reached = set()
        for _ in range(99):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):  # once around
                break
            reached.add(page.evaluate("document.activeElement.dataset.key || document.activeElement.id"))
            outlined = page.evaluate(
                "(() => { const one = document.activeElement, next = one.nextElementSibling;"
                "return [one, next].some((e) => e && getComputedStyle(e).outlineStyle !== 'none') })()"
            )
            assert outlined, page.evaluate("document.activeElement.outerHTML.slice(0, 99)")
        assert {"name", "auc", "fps", "chart", "video", "on", "seen"} <= reached


def test_it_is_of_use_without_the_script(browser, address):
    with opened(browser, address, script=False) as page:
        assert order(page) == ["mama", "mnad", "frame_difference"]
        assert page.locator("#roc g.curve").first.is_visible()
        assert page.locator("#ladder table").count() == 4
        assert page.locator(".card path.spark").count() == 2
        assert page.locator(".kind.highest img").first.is_visible()
        assert not page.locator("figure.scores").is_visible()
        page.locator("#kind-miss").check(force=True)
        assert page.locator(".kind.miss").is_visible()
        page.locator(".kind.miss .shot").first.click()
        page.wait_for_url("**/pictures/*.jpg")


def test_label_sets_are_switched_never_mixed(browser, tmp_path):
    one = made.evaluation("mnad", 0.8, label_sets=("official", "other"))
    one.metrics["honest"]["other"] = one.metrics["honest"]["other"] | {"auc_micro": 0.55}
    write_report([one], tmp_path / "report", made.CARD, made.videos(), tmp_path)
    with opened(browser, (tmp_path / "report" / "index.html").as_uri()) as page:
        cells = page.locator("#results td[data-key=auc]")
        for number, text in ((0, "80.0"), (1, "55.0")):
            page.locator(f"#set{number}").check(force=True)
            assert [cell.inner_text() for cell in cells.all() if cell.is_visible()] == [text]


def test_long_names_fit_a_small_phone(browser, tmp_path):
    made.write_frames(tmp_path / "frames")
    runs = [made.evaluation(f"{name}_method_with_a_name_that_never_ends" * 2, 0.7) for name in ("one", "other")]
    write_report(runs, tmp_path / "report", made.CARD, made.videos(), tmp_path / "frames")
    with opened(browser, (tmp_path / "report" / "index.html").as_uri(), (360, 700)) as page:
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        assert page.locator("#keys .shot").count() == 4
        assert overflow(page) == 0


def test_without_labels_and_frames(browser, tmp_path):
    one = made.evaluation("mnad", None)
    write_report([one], tmp_path / "report", made.CARD, made.videos(float("nan")), tmp_path)
    with opened(browser, (tmp_path / "report" / "index.html").as_uri(), PHONE) as page:
        page.locator("#chart").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#readout").inner_text() == "frame 1"
        assert page.locator("#chart .shade").count() == 0
        assert page.locator("#keys .shot").count() == 0
