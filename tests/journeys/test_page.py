"""The page that shows how a model reads, driven in a real Chromium."""

import itertools
import re

import numpy as np
import pytest
import torch

from blt.api import ByteLM
from blt.cli import main
from blt.codec import encode
from blt.configuration import to_dict
from blt.inspection import glyphs, html_page, read, view_patches
from blt.lm import ShownPatch
from blt.model.cost import cost_of
from blt.patching import (
    ByteRule,
    EntropyAndRiseRule,
    EntropyRiseRule,
    EntropyRule,
    SpaceRule,
    StaticRule,
    patch,
)
from browser import open_browser, open_page
from running_server import running
from tiny_config import TINY_CONFIG

TEXT = "Tom ate 3 crêpes. Then he went home, and the dog ran 😀."


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def lm():
    """A model whose threshold divides the text into many patches."""
    torch.manual_seed(1)
    lm = ByteLM.new(TINY_CONFIG).eval()
    entropies = sorted(read(lm, TEXT).entropies)
    lm.patch_rule = EntropyRule(threshold=round(entropies[len(entropies) * 2 // 3], 3))
    return lm


@pytest.fixture(scope="module")
def address(browser, lm):
    with running(lm) as server:
        yield f"{server.url}/"


@pytest.fixture
def page(browser, address):
    with open_page(browser) as page:
        visit(page, address)
        write(page, TEXT)
        yield page


def visit(page, address):
    page.goto(address)
    page.wait_for_function("() => window.app")


def write(page, text):
    page.fill("#editor", text)
    wait_until_read(page)


def wait_until_read(page):
    """Wait until the figures of the text, as far as the server reads, are those of its last answer."""
    page.wait_for_function(
        """() => window.app?.panes.every((pane) => !pane.timer && pane.reading?.alternatives && pane.reading.flops
            && pane.reading.known === Math.min(app.bytes.length, app.model.max_bytes)
            && JSON.stringify(pane.reading.rule) === JSON.stringify({...pane.reading.rule, ...pane.rule}))"""
    )
    page.evaluate("() => app.panes.forEach((pane) => pane.drawNow())")


def patches_shown(page, pane=0):
    found = page.locator(".pane").nth(pane).locator(".patch")
    return found.evaluate_all("patches => patches.map((patch) => patch.textContent.replace(/\\n/g, ''))")


def patches_of(lm, data, rule=None):
    """The patches of a text as the page shows them."""
    data = data.encode() if isinstance(data, str) else data
    byte_ids = encode(data, bos=True)[None]
    ends = patch(byte_ids, rule or lm.patch_rule, entropies=lm.entropy_model.entropies(byte_ids)).ends[0, 1:]
    stops = [*(ends.nonzero()[:, 0] + 1).tolist(), len(data)]
    pieces = [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False) if stop > start]
    return ["".join(glyph.text for glyph in glyphs(ShownPatch(piece, (), True))) for piece in pieces]


def figure(page, name, pane=0):
    return page.locator(".pane").nth(pane).locator(f"[data-figure={name}]").inner_text()


def test_patches_figures_and_surprise_are_those_of_the_model(page, lm):
    assert patches_shown(page) == patches_of(lm, TEXT)
    reading = read(lm, TEXT)
    count = len(patches_shown(page))
    assert figure(page, "patches") == str(count)
    assert figure(page, "mean") == f"{len(TEXT.encode()) / count:.2f} bytes"
    assert figure(page, "bits") == f"{np.mean(reading.surprise):.3f}"
    heights = page.locator(".glyph:not(.end)").evaluate_all(
        "all => all.map((one) => one.style.getPropertyValue('--heat'))"
    )
    assert len(heights) == len("".join(re.sub("⟨..⟩", "x", patch) for patch in patches_shown(page)))
    first = [min(bits / 8, 1) for bits in reading.surprise[:8]]
    assert [float(height) for height in heights[:8]] == pytest.approx(first, abs=1e-3)


RULES = [
    EntropyRule(threshold=1.25),
    EntropyRule(threshold=1.25, max_length=3),
    EntropyRiseRule(threshold=0.25),
    EntropyAndRiseRule(threshold=1.0, rise_threshold=0.1),
    EntropyAndRiseRule(threshold=0.3, rise_threshold=-0.5, max_length=2),
    SpaceRule(),
    SpaceRule(max_length=4),
    StaticRule(length=3),
    StaticRule(length=5, max_length=2),
    ByteRule(),
]


def test_the_browsers_rules_are_pythons_on_the_same_entropies(page):
    generator = np.random.default_rng(7)
    texts = [
        bytes(generator.integers(0, 256, 400, dtype=np.uint8)),
        b"a b  c, 'd' \xc3\xa9 12 \n\n" * 12,
        b"",
        b"x",
        b" y",
    ]
    cases, expected = [], []
    for rule, nudge in itertools.product(RULES, (0.0, 1e-9, -1e-9)):  # a threshold counts as a float32
        for text in texts:
            steps = generator.integers(0, 16, len(text) + 1).astype(np.float32) / 8  # many lie right at a threshold
            noise = generator.random(len(text) + 1, dtype=np.float32) * generator.integers(0, 2, len(text) + 1)
            entropies = (steps + noise).astype(np.float32)
            byte_ids = encode(text, bos=True)[None]
            settings = to_dict(rule)
            if "threshold" in settings:
                settings["threshold"] += nudge
            given = type(rule)(**{name: value for name, value in settings.items() if name != "type"})
            ends = patch(byte_ids, given, entropies=torch.from_numpy(entropies)[None]).ends[0, 1:]
            expected.append(ends.int().tolist())
            cases.append([settings, list(text), entropies.tolist()])
    found = page.evaluate(
        """async (cases) => {
            const { endsOf } = await import("/page/patching.js");
            return cases.map(([rule, bytes, [start, ...entropies]]) => Array.from(
                endsOf(rule, Uint8Array.from(bytes), { start, entropies: Float32Array.from(entropies) })));
        }""",
        cases,
    )
    assert found == expected
    assert sum(map(sum, expected)) > 3000


def some_bytes():
    generator = np.random.default_rng(3)
    texts = ["aé魚😀\n\t \r\0\x7f", "⟨e2⟩ ⟨E2⟩ ⟨zz⟩ ⟨", "\u202e\u200d\ufeff\u00a0👩‍👩‍👧 नमस्ते مرحبا", ""]
    mixed = [bytes(generator.choice([0x20, 0x41, 0xC3, 0xA9, 0xE2, 0x9F, 0xA8, 0xF0, 0x0A], 30)) for _ in range(40)]
    return [text.encode() for text in texts] + mixed + [bytes(range(256)), b"\xf4\x90\x80\x80\xed\xa0\x80\xc0\x80"]


def test_the_browsers_glyphs_are_pythons(page):
    found = page.evaluate(
        """async (texts) => {
            const { glyphsOf } = await import("/page/glyphs.js");
            return texts.map((bytes) => glyphsOf(Uint8Array.from(bytes), 0, bytes.length)
                .map((glyph) => [glyph.text, glyph.stop - glyph.start, glyph.isSign]));
        }""",
        [list(data) for data in some_bytes()],
    )
    expected = [
        [[glyph.text, len(glyph.data), glyph.is_sign] for glyph in glyphs(ShownPatch(data, (), True))]
        for data in some_bytes()
    ]
    assert found == expected


def test_any_bytes_survive_the_text_field_and_the_link(page):
    page.evaluate("() => { window.field = document.createElement('textarea'); }")
    found = page.evaluate(
        """async (texts) => {
            const { bytesOf, textOf } = await import("/page/bytes.js");
            const { hashOf, stateOf } = await import("/page/link.js");
            const field = document.createElement("textarea");
            const all = [];
            for (const given of texts) {
                const bytes = Uint8Array.from(given);
                field.value = textOf(bytes);
                const rules = [{ type: "entropy", threshold: 1.5 }, { type: "static", length: 3, max_length: 2 }];
                const state = await stateOf(await hashOf({ bytes, rules, heat: "entropy", byteByByte: true }));
                const { rules: kept, heat, byteByByte } = state;
                all.push([Array.from(bytesOf(field.value)), Array.from(state.bytes), kept, heat, byteByByte]);
            }
            return all;
        }""",
        [list(data) for data in some_bytes()],
    )
    rules = [{"type": "entropy", "threshold": 1.5}, {"type": "static", "length": 3, "max_length": 2}]
    assert found == [[list(data), list(data), rules, "entropy", True] for data in some_bytes()]


def test_dragging_the_threshold_needs_no_server_and_everything_follows(page, lm):
    asked = []
    page.route("**/api/**", lambda route: asked.append(route.request.url))  # and never answered
    slider = page.locator("[role=slider]")
    before, box = figure(page, "patches"), slider.bounding_box()
    x, y = box["x"] + 200, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 40, steps=5)
    page.wait_for_function(
        "(before) => document.querySelector('[data-figure=patches]').textContent !== before", arg=before
    )
    page.mouse.up()
    threshold = page.evaluate("() => app.panes[0].rule.threshold")
    assert threshold < lm.patch_rule.threshold
    page.evaluate("() => app.panes[0].drawNow()")
    expected = patches_of(lm, TEXT, EntropyRule(threshold=threshold))
    assert patches_shown(page) == expected
    mean = len(TEXT.encode()) / len(expected)
    assert figure(page, "mean") == f"{mean:.2f} bytes"
    config = lm.config
    cost = cost_of(
        config.blt, mean_patch_bytes=mean, context_bytes=len(TEXT.encode()), entropy_model=config.entropy_model
    )
    shown = figure(page, "flops")
    assert shown.endswith(" kFLOPs")
    assert float(shown.split()[0]) == pytest.approx(cost.flops_with_entropy_model / 1000, rel=6e-3)
    said = slider.get_attribute("aria-valuetext")
    assert said == f"{threshold:.2f} nats: {len(expected)} patches, mean {mean:.2f} bytes, {shown} per byte"


def test_the_threshold_moves_by_keyboard_and_goes_back(page, lm):
    slider = page.locator("[role=slider]")
    slider.focus()
    for key, step in (("ArrowUp", 0.01), ("ArrowLeft", -0.01), ("PageDown", -0.1), ("PageUp", 0.1)):
        before = page.evaluate("() => app.panes[0].rule.threshold")
        page.keyboard.press(key)
        page.evaluate("() => app.panes[0].drawNow()")
        assert page.evaluate("() => app.panes[0].rule.threshold") == pytest.approx(before + step, abs=1e-3), key
    page.keyboard.press("Home")
    page.evaluate("() => app.panes[0].drawNow()")
    assert slider.get_attribute("aria-valuenow") == "0.00"
    assert figure(page, "patches") == str(len(TEXT.encode()))
    page.click("text=The model's rule")
    wait_until_read(page)
    assert patches_shown(page) == patches_of(lm, TEXT)


def test_two_rules_stand_side_by_side_and_each_is_read_by_its_own(page, lm):
    page.click("text=Compare two rules")
    wait_until_read(page)
    assert patches_shown(page, 0) == patches_of(lm, TEXT)
    assert patches_shown(page, 1) == patches_of(lm, TEXT, SpaceRule())
    assert figure(page, "bits", 1) == f"{np.mean(read(lm, TEXT, rule=SpaceRule()).surprise):.3f}"
    first, second = (page.locator(".pane").nth(number).bounding_box() for number in (0, 1))
    assert first["y"] == second["y"]
    second_form = page.locator(".pane").nth(1).locator("form")
    second_form.locator("[name=type]").select_option("static")
    second_form.locator("[name=length]").fill("5")
    wait_until_read(page)
    assert patches_shown(page, 1) == patches_of(lm, TEXT, StaticRule(length=5))
    second_form.locator("[name=type]").select_option("entropy-rise")
    wait_until_read(page)
    threshold = page.evaluate("() => app.panes[1].rule.threshold")
    assert patches_shown(page, 1) == patches_of(lm, TEXT, EntropyRiseRule(threshold=threshold))
    assert abs(len(patches_shown(page, 1)) - len(TEXT.encode()) / 5) < 2, "as many patches as the rule before"
    page.click("text=Compare two rules")
    assert page.locator(".pane").count() == 1


def test_a_byte_shows_its_alternatives_and_choosing_one_goes_on_from_there(page, lm):
    page.click("summary")
    page.uncheck("[name=go_on]")
    page.locator(".glyph").nth(4).hover()
    expected = read(lm, TEXT).alternatives[4]
    assert page.locator("aside h2").inner_text() == "In place of a, 61"
    rows = page.locator("aside li").all_inner_texts()
    assert len(rows) == len(expected) == 8
    assert page.locator("aside li button").first.get_attribute("aria-label") is not None
    page.locator(".glyph").nth(4).click()
    page.locator(".glyph").nth(9).hover()
    assert page.locator("aside h2").inner_text() == "In place of a, 61", "a click keeps it"
    (number, byte) = next((number, byte) for number, (byte, _) in enumerate(expected) if byte is not None)
    page.locator("aside li").nth(number).locator("button").click()
    wait_until_read(page)
    chosen = TEXT.encode()[:4] + bytes([byte])
    assert bytes(page.evaluate("() => Array.from(app.bytes)")) == chosen
    page.click("#undo")
    wait_until_read(page)
    assert page.input_value("#editor") == TEXT
    page.keyboard.press("Control+Shift+Z")
    wait_until_read(page)
    assert bytes(page.evaluate("() => Array.from(app.bytes)")) == chosen
    assert page.is_disabled("#redo")


def test_after_choosing_an_alternative_the_model_goes_on_unless_told_otherwise(page, lm):
    byte = next(byte for byte, _ in read(lm, TEXT).alternatives[6] if byte is not None)
    prefix = TEXT.encode()[:6] + bytes([byte])
    expected = lm.generate(prefix, max_new_bytes=30, temperature=0.7, seed=2).data
    page.click("summary")
    page.fill("[name=max_tokens]", "30")
    page.fill("[name=seed]", "2")
    page.locator(".glyph").nth(6).click()
    page.locator("aside li button").first.click()
    page.locator("#speed", has_text="bytes/s ·").wait_for()
    assert bytes(page.evaluate("() => Array.from(app.bytes)")) == expected
    page.click("#undo")
    assert bytes(page.evaluate("() => Array.from(app.bytes)")) == prefix, "one step for what was generated"
    page.click("#undo")
    assert page.evaluate("() => new TextDecoder().decode(app.bytes)") == TEXT


def test_what_is_typed_without_a_pause_is_one_step_of_undo(page):
    page.wait_for_timeout(1100)  # since the text was written
    page.locator("#editor").press("Control+End")
    page.keyboard.type(" One. Two")
    assert page.evaluate("() => new TextDecoder().decode(app.bytes)") == TEXT + " One. Two"
    page.keyboard.press("Control+Z")
    assert page.evaluate("() => new TextDecoder().decode(app.bytes)") == TEXT
    wait_until_read(page)
    assert page.input_value("#editor") == TEXT


def test_what_is_generated_is_what_the_model_writes_and_can_be_undone(page, lm):
    page.click("summary")
    page.fill("[name=max_tokens]", "40")
    page.fill("[name=seed]", "5")
    generation = lm.generate(TEXT, max_new_bytes=40, temperature=0.7, top_p=1.0, seed=5)
    expected, count = generation.data, len(generation.new_bytes)
    why = {"length": "as many as asked for", "eos": "the text ends there"}[generation.stopped_by]
    assert count > 30
    page.click("#generate")
    page.locator("#speed", has_text=why).wait_for()
    wait_until_read(page)
    assert bytes(page.evaluate("() => Array.from(app.bytes)")) == expected
    assert patches_shown(page) == patches_of(lm, expected)
    assert re.fullmatch(rf"{count} bytes · \d+ bytes/s · {why}", page.inner_text("#speed"))
    page.click("#undo")
    wait_until_read(page)
    assert page.input_value("#editor") == TEXT


def test_generation_stops_when_told(page, lm):
    seed = next(seed for seed in range(50) if len(lm.generate(TEXT, max_new_bytes=500, seed=seed).new_bytes) > 400)
    page.click("summary")
    page.fill("[name=max_tokens]", "500")
    page.fill("[name=seed]", str(seed))
    page.evaluate(
        """() => new Promise((stopped) => {
            const setBytes = app.setBytes.bind(app);
            app.setBytes = (bytes, how) => {
                setBytes(bytes, how);
                document.querySelector("#stop").click();
                stopped();
            };
            document.querySelector("#generate").click();
        })"""
    )
    length = page.evaluate("() => app.bytes.length")
    wait_until_read(page)
    assert page.evaluate("() => app.bytes.length") == length
    assert len(TEXT.encode()) < length < len(TEXT.encode()) + 400
    assert page.is_disabled("#stop")
    assert page.input_value("#editor").startswith(TEXT)


def test_bytes_that_are_no_text_are_shown_as_bytes(page, lm):
    write(page, "A⟨ff⟩⟨c3⟩é👩‍👧")
    data = b"A\xff\xc3" + "é👩‍👧".encode()
    assert bytes(page.evaluate("() => Array.from(app.bytes)")) == data
    assert patches_shown(page) == patches_of(lm, data)
    page.check("#bytes")
    page.evaluate("() => app.panes[0].drawNow()")
    assert "".join(patches_shown(page)) == "A" + "".join(f"⟨{byte:02x}⟩" for byte in data[1:])
    page.set_input_files(
        "#file", {"name": "x.bin", "mimeType": "application/octet-stream", "buffer": bytes(range(256))}
    )
    wait_until_read(page)
    assert bytes(page.evaluate("() => Array.from(app.bytes)")) == bytes(range(256))


def test_a_link_shows_the_same(page, browser, lm):
    page.click("text=Compare two rules")
    page.locator(".pane").nth(0).locator("[name=threshold]").fill("5.2")
    page.select_option("#heat", "entropy")
    write(page, "Tom⟨ff⟩ ate")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#link")
    page.wait_for_function("() => /copied/.test(document.querySelector('#status').textContent)")
    link = page.evaluate("() => navigator.clipboard.readText()")
    with open_page(browser) as other:
        visit(other, link)
        wait_until_read(other)
        assert patches_shown(other, 0) == patches_of(lm, b"Tom\xff ate", EntropyRule(threshold=5.2))
        assert patches_shown(other, 1) == patches_of(lm, b"Tom\xff ate", SpaceRule())
        assert other.input_value("#heat") == "entropy"
        other.goto(link.split("#")[0] + "#t=%%%&a=x")
        other.wait_for_selector("[role=alert]:not([hidden])")
        assert "The link is damaged" in other.inner_text("[role=alert]")


def test_the_saved_page_opens_without_a_server_and_its_threshold_can_be_dragged(page, browser, lm, tmp_path):
    with page.expect_download() as download:
        page.click("text=Save as HTML")
    download.value.save_as(tmp_path / "saved.html")
    check_saved_page(browser, lm, tmp_path / "saved.html", TEXT)


def test_the_page_of_blt_patch_opens_without_a_server(browser, lm, tmp_path):
    lm.save_pretrained(tmp_path / "tiny")
    with pytest.raises(SystemExit) as stop:
        main(["patch", TEXT, "--model", str(tmp_path / "tiny"), "--html", str(tmp_path / "out.html")])
    assert stop.value.code == 0
    check_saved_page(browser, lm, tmp_path / "out.html", TEXT)


def test_the_saved_page_of_a_model_without_entropies_has_no_curve(browser, lm, tmp_path):
    plain = ByteLM(lm.blt, patch_rule=SpaceRule())
    path = tmp_path / "plain.html"
    path.write_text(html_page(view_patches(plain, TEXT), read(plain, TEXT), title="plain", heat="entropy"))
    with open_page(browser) as saved:
        saved.goto(path.as_uri())
        saved.wait_for_selector(".patch")
        assert patches_shown(saved) == patches_of(lm, TEXT, SpaceRule())
        assert not saved.is_visible("[role=slider]")
        assert saved.locator("[name=type] option:disabled").count() == 3, "rules that need entropies"
        saved.locator("[name=type]").select_option("static")
        saved.evaluate("() => app.panes[0].drawNow()")
        assert patches_shown(saved) == patches_of(lm, TEXT, StaticRule(length=4))


def check_saved_page(browser, lm, path, text):
    with open_page(browser) as saved:
        saved.goto(path.as_uri())
        saved.wait_for_selector(".patch")
        assert patches_shown(saved) == patches_of(lm, text)
        assert not saved.is_visible("#editor")
        saved.locator("[role=slider]").focus()
        saved.keyboard.press("PageDown")
        saved.evaluate("() => app.panes[0].drawNow()")
        threshold = saved.evaluate("() => app.panes[0].rule.threshold")
        assert patches_shown(saved) == patches_of(lm, text, EntropyRule(threshold=threshold))
        saved.locator(".glyph").nth(2).hover()
        assert saved.locator("aside li").count() == 8
        assert saved.locator("aside li button").count() == 0, "nothing can go on"


def test_the_picture_is_a_png_of_what_is_seen(page, tmp_path):
    page.click("text=Compare two rules")
    wait_until_read(page)
    with page.expect_download() as download:
        page.click("text=Save as PNG")
    download.value.save_as(tmp_path / "patches.png")
    from matplotlib.image import imread

    pixels = imread(tmp_path / "patches.png")
    assert pixels.shape[1] == 2400
    colours = {tuple((255 * pixel).round().astype(int)) for row in pixels[::2, ::2] for pixel in row}
    assert {(223, 233, 247, 255), (247, 232, 211, 255), (47, 79, 208, 255)} <= colours, (
        "both patches, and the threshold"
    )


def test_everything_is_reached_by_keyboard(page, lm):
    page.locator(".text").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".glyph.active").inner_text() == TEXT[1]
    page.keyboard.press("ArrowDown")
    first = patches_of(lm, TEXT)[0]
    active = page.locator(".text").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").inner_text() == TEXT[len(first)]
    label = page.locator(f"#{active}").get_attribute("aria-label")
    assert re.search(r"patch 2, surprise [\d.]+ bits, then entropy [\d.]+ nats$", label)
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.closest('aside') !== null")
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.classList.contains('text')")
    page.keyboard.press("End")
    assert page.locator("aside h2").inner_text() == "What comes next"


def test_a_server_that_fails_is_told_and_a_server_that_is_back_is_used(browser, address, lm):
    with open_page(browser, allowed=("console: Failed to load resource",)) as page:
        visit(page, address)
        write(page, "Tom")
        error = {"error": {"message": "rule: that cannot be", "type": "invalid_request_error"}}
        page.route("**/api/patch", lambda route: route.fulfill(status=400, json=error))
        page.fill("#editor", "Tom ate")
        page.wait_for_selector("[role=alert]:not([hidden])")
        assert page.inner_text("[role=alert]") == "rule: that cannot be"
        page.unroute("**/api/patch")
        page.route("**/api/patch", lambda route: route.abort())
        page.fill("#editor", "Tom ate a")
        page.wait_for_function("() => /does not answer/.test(document.querySelector('[role=alert]').textContent)")
        page.unroute("**/api/patch")
        write(page, "Tom ate a crêpe")
        assert not page.is_visible("[role=alert]")
        assert patches_shown(page) == patches_of(lm, "Tom ate a crêpe")


def test_an_error_within_a_stream_is_told_and_what_was_written_stays(page):
    piece, error = (
        '{"choices": [{"hex": "4142", "finish_reason": null}]}',
        '{"error": {"message": "the worker has ended"}}',
    )
    body = f"data: {piece}\n\ndata: {error}\n\ndata: [DONE]\n\n"
    page.route("**/v1/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.click("#generate")
    page.locator("[role=alert]", has_text="the worker has ended").wait_for()
    wait_until_read(page)
    assert page.input_value("#editor") == TEXT + "AB"
    assert page.is_disabled("#stop")


def test_a_text_longer_than_the_server_reads_is_read_as_far_as_that(browser, lm):
    with running(lm, max_read_bytes=20) as server, open_page(browser) as page:
        visit(page, server.url)
        write(page, TEXT)
        page.locator("#status", has_text="The first 20 bytes are read").wait_for(state="attached")
        assert patches_shown(page)[:-1] == patches_of(lm, TEXT.encode()[:20])
        assert page.locator(".unread").inner_text() == TEXT.encode()[20:].decode()


def test_the_page_of_a_server_with_a_key_works_once_the_browser_has_asked_for_it(browser, lm):
    key = {"username": "anyone", "password": "secret"}
    with running(lm, api_key="secret") as server, open_page(browser, http_credentials=key) as page:
        visit(page, server.url)
        write(page, "Tom ate")
        assert patches_shown(page) == patches_of(lm, "Tom ate")


def test_a_busy_server_is_asked_again(page, lm):
    answers = iter([{"status": 429, "headers": {"Retry-After": "0"}}])

    def busy_once(route):
        if (answer := next(answers, None)) is None:
            route.continue_()
        else:
            route.fulfill(**answer)

    with open_page(page.context.browser, allowed=("console: Failed to load resource",)) as other:
        other.route("**/api/patch", busy_once)
        visit(other, page.url.split("#")[0])
        write(other, "Tom ate")
        assert patches_shown(other) == patches_of(lm, "Tom ate")


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
    ],
    ids=["light", "dark", "narrow"],
)
def test_axe_finds_nothing_serious_and_nothing_overflows(browser, address, options):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    with open_page(browser, bypass_csp=True, **options) as page:
        visit(page, address)
        write(page, TEXT)
        page.click("text=Compare two rules")
        page.click("summary")
        wait_until_read(page)
        page.locator(".glyph").nth(3).hover()
        found = axe.Axe().run(page).response["violations"]
        serious = [
            f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")
        ]
        assert serious == []
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


def test_the_theme_can_be_chosen(browser, address):
    with open_page(browser, color_scheme="light") as page:
        visit(page, address)
        colour = "() => getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(colour) == "rgb(251, 250, 247)"
        page.select_option("#theme", "dark")
        assert page.evaluate(colour) == "rgb(20, 24, 31)"
        page.reload()
        page.wait_for_selector(".patch")
        assert page.evaluate(colour) == "rgb(20, 24, 31)", "it is remembered"
