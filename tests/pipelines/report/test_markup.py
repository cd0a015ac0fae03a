"""HTML fragments: escaped, closed, and in boxes that scroll by themselves."""

import xml.etree.ElementTree as ElementTree

from pipelines.report.markup import element, pairs, section, table, text


def test_text_is_read_back_as_it_was_in_elements_and_attributes():
    value = "<b>&amp;</b> \"double\" and 'single', a < b & c > d"
    parsed = ElementTree.fromstring(element("p", text(value), title=value))
    assert (parsed.text, parsed.attrib) == (value, {"title": value})


def test_characters_that_no_page_can_hold_are_replaced():
    assert text("a\x00b\x1bc\udc80d\ufffe") == "a\ufffdb\ufffdc\ufffdd\ufffd"


def test_names_of_attributes_are_those_of_html():
    written = element("p", class_="note", aria_label="x", hidden=None)
    assert written == '<p class="note" aria-label="x"></p>'


def test_element_without_content_is_closed():
    assert element("img", alt="a") == '<img alt="a" />'
    assert element("circle", element("title", "x")) == "<circle><title>x</title></circle>"


def test_section_without_content_is_left_out():
    assert section("key", "Title", "", "") == ""


def test_section_is_named_by_its_heading():
    parsed = ElementTree.fromstring(section("key", "A & B", "<p>x</p>"))
    heading = parsed.find("h2")
    assert heading.text == "A & B"
    assert (parsed.get("id"), parsed.get("aria-labelledby")) == ("key", heading.get("id"))


def test_table_has_caption_scopes_and_numbers_to_the_right_in_a_box_of_its_own():
    box = ElementTree.fromstring(table("Times", ("Phase", "s"), [("one", "2")], numbers=(1,)))
    assert (box.get("class"), box.get("tabindex"), box.get("aria-label")) == (
        "scroll",
        "0",
        "Times",
    )
    assert box.find("table/caption").text == "Times"
    assert [th.get("scope") for th in box.iter("th")] == ["col", "col", "row"]
    assert [td.get("class") for td in box.iter("td")] == ["number"]


def test_pairs_leave_out_what_has_no_value():
    parsed = ElementTree.fromstring(pairs([("a", "1"), ("b", "")]))
    assert [(d.find("dt").text, d.find("dd").text) for d in parsed] == [("a", "1")]
